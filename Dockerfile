# crosstune with what a shared installation needs: PostgreSQL, Redis, trees. `docker compose up --build` uses it.
FROM python:3.12-slim
# TVM links what it compiles with the system's compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt '.[postgres,redis,trees]'
RUN useradd --create-home --uid 1000 crosstune && mkdir /data /store && chown crosstune /data /store
USER crosstune
WORKDIR /data
ENTRYPOINT []
CMD ["crosstune", "serve", "--data-dir", "/data"]
