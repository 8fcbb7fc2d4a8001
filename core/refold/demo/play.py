"""The acts of the demo: a day in the shop, three accidents, and the proof."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from refold.demo import edits, proof
from refold.demo.board import Frame
from refold.demo.figures import Freshness, behind, figures
from refold.demo.kill import kill_at_work
from refold.demo.shop import TODAY, Day, Step, day, train
from refold.demo.show import Show
from refold.demo.stage import Hand, Stage
from refold.demo.stream import Rate, Received, stream
from refold.demo.tally import tally
from refold.demo.wait import wait_for
from refold.engine.reconcile import reconcile
from refold.model.event.source_event import Answer
from refold.store.log.log import Log

TWICE = 1_000
"""Most deliveries in the batch that is delivered twice."""
TRAIN = 1_500
"""Events of the first train."""
DAY_AT_RATE = 2_000.0
"""Deliveries a second for which the length of the day is chosen."""
DAY_LENGTH_S = (1.5, 10.0)
DRAW_S = 0.2
SAMPLE_S = 0.07


class Play:
    """A performance of the demo.

    Args:
        show: prints the demo.
        stage: the server and the workers.
        seed: seed of the shop.
    """

    def __init__(self, show: Show, stage: Stage, seed: int) -> None:
        self.show = show
        self.stage = stage
        self.seed = seed
        self.script = Day((), ())
        self.started = time.monotonic()
        self.steps: list[Step] = []
        self.received = Received()
        self.upkeep: dict[str, str] = {}
        self.worst = 0.0
        self.killed = 0
        self.healed = 0

    def run(self) -> None:
        """Perform all acts."""
        with Log(self.stage.url, source="shop") as log:
            self.live_day(log)
            self.twice(log)
            self.kill(log)
        self.edit()
        self.prove()

    def set_up(self, events: int, processes: int) -> None:
        """Start the server, install schema and metrics, start the workers, and make up the shop's day."""
        self.show.print("[bold cyan]refold[/]  correct metrics from an event log, in the Postgres you already run")
        self.show.print()
        with self._step("PostgreSQL") as done:
            version = self.stage.start()
            done.append(f"{version}, a throwaway server in {self.stage.home}")
        with self._step("the log") as done:
            self.stage.install()
            done.append("append-only, stores each event id once")
        self.admin = self.stage.connect(None)
        self.analyst = self.stage.connect("refold_analyst")
        self.owner = self.stage.connect("refold_worker")
        # Workers take a second to start: deploy the metrics and make up the day meanwhile.
        hands = self.stage.hire(processes)
        with self._step("the metrics") as done:
            builds = self.stage.deploy()
            self.upkeep = {build.projection: build.upkeep for build in sorted(builds, key=lambda b: b.projection)}
            done.append(", ".join(self.upkeep))
        with self._step("a shop") as done:
            self.script = day(self.seed, events)
            self.steps = list(self.script.steps)
            done.append(f"its Black Friday made up from seed {self.seed}")
        with self._step(f"{processes} worker{'s'[: processes > 1]}") as done:
            self.stage.wait_for_hands(self.admin)
            done.append(f"process{'es'[: 2 * (processes > 1)]} {', '.join(str(hand.pid) for hand in hands)}")

    def live_day(self, log: Log) -> None:
        """Append the deliveries of the day, with duplicates, late events, conflicts and invalid ones."""
        number = len(self.script.deliveries)
        self.show.act(1, f"A day in the shop: {number:,} messages from browsers and phones")
        self.show.say("Some arrive twice, some hours late and out of order, and some are contradictory or broken.")
        freshness, rate = Freshness(self.analyst), Rate()
        started = time.monotonic()
        due = {"draw": 0.0, "sample": 0.0}

        def frame(clock: float) -> Frame:
            got = self.received
            count = got.answers.total()
            return Frame(
                time.monotonic() - started, clock, count, rate.of(count), got.answers[Answer.accepted],
                got.answers[Answer.duplicate], got.rejected, got.late, figures(self.analyst, TODAY),
                self.upkeep, freshness.recent(),
            )  # fmt: skip

        def look(clock: float) -> None:
            now = time.monotonic()
            if now >= due["sample"]:
                freshness.sample()
                due["sample"] = now + SAMPLE_S
            if now >= due["draw"]:
                board.draw(frame(clock))
                due["draw"] = now + DRAW_S

        shortest, longest = DAY_LENGTH_S
        with self.show.day() as board:
            seconds = min(max(number / DAY_AT_RATE, shortest), longest)
            stream(log, self.script.deliveries, self.received, seconds, look)
            self._caught_up()
            freshness.sample()
            board.draw(frame(86_400), last=True)
        self.worst = max(freshness.worst.values())
        got = self.received.answers
        self.show.check(
            f"{number:,} messages = {got[Answer.accepted]:,} stored + {got[Answer.duplicate]:,} duplicates"
            f" + {self.received.rejected} rejected ({got[Answer.conflict]} conflicts, {got[Answer.invalid]} invalid)",
            self.received.surprises + proof.rejected_differ(self.owner, self.received.rejected),
        )

    def twice(self, log: Log) -> None:
        """Append a batch of events that the log has already."""
        accepted = [one for one in self.script.deliveries if one.fate is Answer.accepted]
        batch = accepted[-TWICE:]
        self.show.act(2, "The same batch again")
        self.show.say(f"A client never got the reply and sends its {len(batch):,} events once more.")
        before = proof.sums(self.owner)
        receipts = log.append([one.event for one in batch])
        stored = sum(receipt.answer is Answer.accepted for receipt in receipts)
        refused = sum(receipt.answer is Answer.duplicate for receipt in receipts)
        self._caught_up()
        differences = [f"{stored:,} stored, {refused:,} duplicates"] * (refused != len(batch))
        differences += proof.sums_differ(proof.sums(self.owner), before[0])
        self.show.check(f"0 stored, {len(batch):,} duplicates; no metric moved", differences)

    def kill(self, log: Log) -> None:
        """Kill a worker in the middle of a page."""
        self.show.act(3, "kill -9")
        surprises = len(self.received.surprises)
        victim = self.stage.hands[0]

        def feed(number: int) -> None:
            late = train(self.seed, number, TRAIN * 2 ** min(number - 1, 4))
            self.steps += late.steps
            self.received.append(log, late.deliveries)

        killed = kill_at_work(self.admin, victim, feed)
        self.killed += 1
        self.stage.hands.remove(victim)
        arrived = len(self.steps) - len(self.script.steps)
        self.show.say(f"A train leaves its tunnel, and {arrived:,} events of this evening arrive at once.")
        self.show.say(
            f"Worker {victim.pid} was writing {' and '.join(killed.metrics)}, not yet committed, when kill -9 hit it."
        )
        alone = not self.stage.hands
        heirs = self.stage.hire(1) if alone else self.stage.hands
        self._caught_up()
        seconds = time.monotonic() - killed.at
        who = f"a new worker, {heirs[0].pid}," if alone else _names(heirs)
        stored = self.received.answers[Answer.accepted]
        differences = self.received.surprises[surprises:] + proof.sums_differ(proof.sums(self.owner), stored)
        self.show.check(
            f"{who} did that page again; every metric was up to date {seconds:.1f} s later,"
            f" with {stored:,} events, none lost and none twice",
            differences,
        )

    def edit(self) -> None:
        """Edit metrics by hand, and let reconcile find and heal the edits."""
        self.show.act(4, "Edits by hand")
        self.show.say("A user with too many privileges runs:")
        planned = edits.plan(self.owner)
        for edit in planned:
            self.show.code(edit.statement)
        expected = edits.perform(self.owner, planned)
        with self.show.waiting("refold reconcile"):
            report = reconcile(self.owner, self.stage.projections)
        self.show.say("refold reconcile compares every metric with its query over the log, and finds:")
        # The audit of a worker, every minute, may have healed some of them first.
        findings = [*report.findings, *edits.healed_by_workers(self.owner)]
        rows = []
        for one in findings:
            rows.append((one.kind, one.projection, *edits.describe(one, self.show.glyphs.arrow)))
        self.show.table(rows, ("", "metric", "row", "healed"))
        found = edits.drift(self.owner, findings)
        recorded = self.owner.execute("SELECT count(*) FROM refold.repairs").fetchone()
        self.healed = sum(one.healed for one in findings)
        differences = [f"edited, but not found: {' '.join(one)}" for one in expected - found]
        differences += [f"found, but not edited: {' '.join(one)}" for one in found - expected]
        differences += [f"{name} was not compared: {why}" for name, why in report.skipped]
        differences += ["not every finding was healed"] * (self.healed != len(findings))
        differences += ["refold.repairs does not record every finding"] * (recorded != (len(findings),))
        self.show.check(
            f"exactly those {expected.total()} rows, and no other; healed, and recorded in refold.repairs",
            differences,
        )

    def prove(self) -> None:
        """Compare every metric with its query over the log, and with the shop's own count."""
        self.show.act(5, "The proof")
        own = tally(self.steps)
        with self.show.waiting("comparing every row"):
            report = reconcile(self.owner, self.stage.projections)
        rows, differences = [], [f"{name} was not compared: {why}" for name, why in report.skipped]
        for metric in self.upkeep:
            drifted = sum(n for (name, *_), n in report.counts.items() if name == metric)
            law = metric in report.audited and not drifted
            differing = proof.against_shop(self.analyst, metric, own)
            differences += [f"{metric}: rows that differ from its query over the log: {drifted}"] * (drifted > 0)
            differences += differing
            rows.append(
                (metric, f"{proof.rows_of(self.analyst, metric):,}", self._sign(law), self._sign(not differing))
            )
        self.show.table(rows, ("metric", "rows", "= its query over the log", "= the shop's own count"), right=(1,))
        stored = self.received.answers[Answer.accepted]
        differences += proof.sums_differ(proof.sums(self.owner), stored)
        self.show.check(f"{len(rows)} metrics of {len(rows)}, every row", differences)

    def verdict(self) -> None:
        """Print the result in a few lines."""
        seconds = time.monotonic() - self.started
        self.show.print()
        if self.show.failures:
            self.show.print(f"[bold red]Not correct[/] ({len(self.show.failures)} differences, see above).")
            return
        got = self.received.answers
        self.show.print(f"[bold green]Correct, and proven[/], in {seconds:.0f} seconds:")
        rows = (
            ("events stored", f"{got[Answer.accepted]:,}", "each once"),
            ("late events", f"{self.received.late:,}", "counted on the day they happened"),
            ("duplicates refused", f"{got[Answer.duplicate] + TWICE:,}", ""),
            ("rejected", f"{self.received.rejected:,}", "kept with their reasons"),
            ("workers killed", f"{self.killed:,}", ""),
            ("rows healed", f"{self.healed:,}", "all that were edited by hand"),
            ("worst lag", f"{self.worst * 1000:,.0f} ms", "of the slowest metric"),
        )
        self.show.table(rows, right=(1,))

    @contextmanager
    def _step(self, what: str) -> Iterator[list[str]]:
        started = time.monotonic()
        how: list[str] = []
        with self.show.waiting(what):
            yield how
        self.show.ready(what, "".join(how), time.monotonic() - started)

    def _caught_up(self) -> None:
        def caught_up() -> bool:
            self.stage.insist_on_hands()
            return behind(self.analyst) == 0

        wait_for(caught_up, "the workers catch up")

    def _sign(self, good: bool) -> str:
        return self.show.glyphs.good if good else self.show.glyphs.bad


def _names(hands: Sequence[Hand]) -> str:
    numbers = ", ".join(str(hand.pid) for hand in hands)
    return f"worker {numbers}" if len(hands) == 1 else f"one of the workers {numbers}"
