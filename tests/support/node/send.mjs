// node send.mjs CLIENT URL TOKEN: sends a few messages as an application does, unchanged SDKs only.
// Prints the statuses that CloudEvents got, or the errors that an SDK has told, as JSON.

const when = new Date("2026-03-01T09:00:00Z");

function messages(client) {
  client.track({ userId: "u1", event: "Bought", properties: { amount: 5 }, timestamp: when });
  client.identify({ userId: "u1", traits: { plan: "pro" }, timestamp: when });
  client.page({ userId: "u2", name: "front", properties: { a: 1 }, timestamp: when });
  client.screen({ userId: "u2", name: "front", properties: { a: 1 }, timestamp: when });
  client.group({ userId: "u1", groupId: "g1", traits: { size: 3 }, timestamp: when });
  client.alias({ userId: "u1", previousId: "anon", timestamp: when });
}

async function segment(url, token) {
  const { Analytics } = await import("@segment/analytics-node");
  const errors = [];
  const client = new Analytics({ writeKey: token, host: url, maxRetries: 2 });
  client.on("error", (error) => errors.push(String(error.reason ?? error)));
  messages(client);
  await client.closeAndFlush();
  return errors;
}

async function rudderstack(url, token) {
  const { default: Analytics } = await import("@rudderstack/rudder-sdk-node");
  const errors = [];
  const client = new Analytics(token, {
    dataPlaneUrl: url,
    errorHandler: (error) => errors.push(String(error)),
  });
  messages(client);
  await client.flush();
  return errors;
}

async function cloudevents(url, token) {
  const { CloudEvent, HTTP } = await import("cloudevents");
  const message = new CloudEvent({
    id: "A é 1",
    source: "/shop", // the SDK writes a percent sign into a header as it is, where it would mean an encoding
    type: "com.example.bought",
    time: when.toISOString(),
    subject: 'a b%"c',
    partner: "ü",
    // Else it says application/json with a character set in one mode, and nothing in the other.
    datacontenttype: "application/json",
    data: { userId: "u1", amount: 5, nested: { a: [1, null] } },
  });
  const statuses = [];
  for (const { headers, body } of [HTTP.binary(message), HTTP.structured(message)]) {
    const sent = { ...headers, authorization: `Bearer ${token}` };
    const answer = await fetch(`${url}/v1/events`, { method: "POST", headers: sent, body });
    statuses.push(answer.status);
  }
  return statuses;
}

const [client, url, token] = process.argv.slice(2);
console.log(JSON.stringify(await { segment, rudderstack, cloudevents }[client](url, token)));
process.exit(0);
