// The clients for Node: openai, @langchain/openai, cohere-ai.

import assert from "node:assert/strict";
import { readFileSync, appendFileSync, writeFileSync } from "node:fs";
import { OpenAIEmbeddings } from "@langchain/openai";
import { CohereClientV2, CohereError } from "cohere-ai";
import OpenAI from "openai";

const context = JSON.parse(readFileSync(process.env.CLIENTS_CONTEXT, "utf8"));
const { base, keyed, key, expected } = context;
const { texts, messages, rerank } = expected;
const checks = [];

function check(name, what, run) {
  const { version } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  checks.push({ client: `npm ${name}`, version, what, run });
}

function close(got, vectors, tolerance = 1e-6) {
  assert.equal(got.length, vectors.length);
  got.forEach((vector, n) => {
    assert.equal(vector.length, vectors[n].length);
    const worst = Math.max(...Array.from(vector, (x, i) => Math.abs(x - vectors[n][i])));
    assert.ok(worst <= tolerance, `off by ${worst}, over ${tolerance}`);
  });
}

function ranked(got, top = rerank.order.length) {
  const order = rerank.order.slice(0, top);
  assert.deepEqual(
    got.map((result) => result.index),
    order,
  );
  const scores = order.map((index) => rerank.scores[index]);
  close([got.map((result) => result.relevanceScore)], [scores], 1e-5);
}

const openai = (url, apiKey = "none") =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const vectors = (answer) => answer.data.map((item) => item.embedding);

check("openai", "embeddings.create: base64 by default, float, dimensions, usage", async () => {
  const { embeddings } = openai(base);
  const coded = await embeddings.create({ model: "any", input: texts });
  close(vectors(coded), expected.plain.vectors);
  const tokens = expected.plain.tokens.reduce((a, b) => a + b);
  assert.deepEqual(coded.usage, { prompt_tokens: tokens, total_tokens: tokens });
  const floats = await embeddings.create({ model: "any", input: texts, encoding_format: "float" });
  // A number of an answer is the shortest that is this float.
  const rounded = vectors(floats).map((vector) => vector.map(Math.fround));
  close(rounded, vectors(coded), 0);
  const short = await embeddings.create({ model: "any", input: texts, dimensions: 64 });
  close(vectors(short), expected.short.vectors);
});

check("openai", "models.list", async () => {
  const listed = await openai(base).models.list();
  assert.deepEqual(
    listed.data.map((model) => model.id),
    [messages.model, messages.reranker],
  );
});

check("openai", "errors become BadRequestError and AuthenticationError with their fields", async () => {
  const wrong = (client) => client.embeddings.create({ model: "any", input: "a", dimensions: 385 });
  await assert.rejects(wrong(openai(base)), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError, String(error));
    assert.equal(error.param, messages.dimensions_param);
    assert.equal(error.type, messages.bad_request);
    assert.ok(error.message.includes(messages.dimensions), error.message);
    return true;
  });
  await assert.rejects(wrong(openai(keyed, "wrong")), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError, String(error));
    assert.equal(error.code, messages.key_code);
    return true;
  });
  const answer = await openai(keyed, key).embeddings.create({ model: "any", input: texts });
  close(vectors(answer), expected.plain.vectors);
});

check("@langchain/openai", "OpenAIEmbeddings: embedDocuments, embedQuery, dimensions", async () => {
  const options = { apiKey: "none", configuration: { baseURL: `${base}/v1` } };
  const client = new OpenAIEmbeddings({ ...options, model: "any", batchSize: 4 });
  close(await client.embedDocuments(texts), expected.plain.vectors);
  close([await client.embedQuery(expected.query.text)], expected.query.vectors);
  const short = new OpenAIEmbeddings({ ...options, model: "any", dimensions: 64 });
  close(await short.embedDocuments(texts), expected.short.vectors);
});

check("cohere-ai", "CohereClientV2.rerank, topN, errors", async () => {
  const client = new CohereClientV2({ token: "none", environment: base });
  const { query, documents } = rerank;
  const all = await client.rerank({ model: "rerank-v3.5", query, documents });
  ranked(all.results);
  const best = await client.rerank({ model: "rerank-v3.5", query, documents, topN: 2 });
  ranked(best.results, 2);
  await assert.rejects(client.rerank({ model: "any", query, documents: [] }), (error) => {
    assert.ok(error instanceof CohereError, String(error));
    assert.equal(error.body.message, messages.empty_documents);
    return true;
  });
});

const results = process.env.CLIENTS_RESULTS;
const say = (line) => appendFileSync(results, `${JSON.stringify(line)}\n`);
writeFileSync(results, "");
for (const { run: _, ...line } of checks) say({ ...line, state: "planned" });
for (const { run, ...line } of checks) {
  const start = Date.now();
  let note = null;
  try {
    await run();
  } catch (error) {
    console.error(error);
    note = String(error?.message ?? error).slice(0, 600);
  }
  const s = (Date.now() - start) / 1000;
  say({ ...line, state: note === null ? "passed" : "failed", note, s });
}
