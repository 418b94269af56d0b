// Compiles every JSON Schema of the feeds and of the OpenAPI documents with Ajv in strict mode, which fails on unknown
// formats, and validates the frozen events of the feed.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const addFormats = require("ajv-formats");
const { default: Ajv } = require("ajv");
const { default: Ajv2020 } = require("ajv/dist/2020");

const STRICT = { strict: true, allErrors: true, validateFormats: true, allowUnionTypes: true };

const read = (file) => JSON.parse(fs.readFileSync(file, "utf8"));
const filesIn = (folder) => (fs.existsSync(folder) ? fs.readdirSync(folder) : []).map((name) => path.join(folder, name));
const projects = ["."].concat(filesIn("."), filesIn("examples")).filter((at) => fs.statSync(at).isDirectory());

function fail(what, validate) {
  const why = validate.errors.map((error) => `${error.instancePath} ${error.message}`).join("; ");
  throw new Error(`${what}: ${why}`);
}

/// The schemas of the feeds, by file name.
function schemasOfFeeds() {
  const found = new Map();
  for (const file of projects.flatMap((at) => filesIn(path.join(at, "asyncapi/schemas")))) {
    const ajv = addFormats(new Ajv(STRICT));
    const schema = read(file);
    if (schema.$id !== path.basename(file)) throw new Error(`${file}: $id is ${schema.$id}`);
    found.set(path.basename(file), ajv.compile(schema));
  }
  return found;
}

function checkEvents(schemas) {
  let count = 0;
  for (const file of filesIn("events/golden/feed")) {
    const event = read(file);
    for (const [name, value] of [[`${event.type}.json`, event], [`${event.type}.data.json`, event.data]]) {
      const validate = schemas.get(name);
      if (!validate(value)) fail(`${file} and ${name}`, validate);
      // Detects a schema that accepts everything.
      if (validate({})) throw new Error(`${name} accepts an empty object`);
      count += 1;
    }
  }
  return count;
}

/// Values that a schema itself declares as valid: examples, defaults and enum members, also of its parts.
function valuesOf(schema) {
  const parts = (schema.allOf ?? []).flatMap(valuesOf);
  const own = ["example", "default"].filter((name) => name in schema).map((name) => schema[name]);
  return [...own, ...(schema.enum ?? []), ...parts];
}

/// Compiles the schemas of an OpenAPI document: the named ones and those inside calls.
function compileOpenApi(file) {
  const document = read(file);
  const ajv = addFormats(new Ajv2020(STRICT));
  // OpenAPI keywords that do not affect validity.
  ajv.addVocabulary(["example", "components"]);
  ajv.addSchema({ $id: "document", components: document.components }, "document");
  const absolute = (value) =>
    JSON.parse(JSON.stringify(value, (key, inner) => (key === "$ref" ? `document${inner}` : inner)));
  let count = 0;
  const compile = (schema, pointer) => {
    const validate = ajv.compile(absolute(schema));
    count += 1;
    for (const value of valuesOf(schema)) {
      if (!validate(value)) fail(`${file}${pointer}: ${JSON.stringify(value)}`, validate);
    }
  };
  const walk = (value, pointer) => {
    if (value === null || typeof value !== "object") return;
    for (const [key, inner] of Object.entries(value)) {
      if (key === "schema") compile(inner, `${pointer}/schema`);
      else walk(inner, `${pointer}/${key}`);
    }
  };
  for (const [name, schema] of Object.entries(document.components.schemas)) compile(schema, `#/components/schemas/${name}`);
  walk(document.paths, "#/paths");
  return count;
}

const schemas = schemasOfFeeds();
const events = checkEvents(schemas);
if (schemas.size < 28 || events < 28) throw new Error("schemas or frozen events are missing");
const documents = projects.flatMap((at) => ["openapi.json", "openapi/roster.json"].map((name) => path.join(at, name)));
const inDocuments = documents.filter((file) => fs.existsSync(file)).map(compileOpenApi);
if (inDocuments.length < 2) throw new Error("OpenAPI documents are missing");
const sum = inDocuments.reduce((one, other) => one + other);
console.log(`${schemas.size} schemas of feeds and ${sum} of OpenAPI documents compile, and ${events} events are valid`);
