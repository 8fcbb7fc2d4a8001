FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.13-slim
RUN useradd --system --create-home --home-dir /srv/refold refold
COPY --from=build /wheel /wheel
RUN pip install --no-cache-dir /wheel/*.whl && rm -r /wheel
USER refold
WORKDIR /srv/refold
ENTRYPOINT ["refold"]
CMD ["--help"]
