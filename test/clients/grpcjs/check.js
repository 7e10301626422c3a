// Asks for the health of gRPC servers with grpc-js. Each line of standard input is a question, each line of standard output its answer,
// both as in clients/programs_test.go.
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');

const CHECK = '/grpc.health.v1.Health/Check';

// The messages of grpc.health.v1: HealthCheckRequest has the service's name as field 1, HealthCheckResponse the status. A name is
// shorter than 128 bytes here, and a status smaller than 128, so that both lengths and values are one byte.
function request(service) {
  const name = Buffer.from(service);
  return name.length === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.from([0x0a, name.length]), name]);
}

function status(response) {
  return response.length === 0 ? 0 : response[1];
}

function merge(into, metadata) {
  for (const [name, value] of Object.entries(metadata.getMap())) {
    into[name] = String(value);
  }
}

function ask(question) {
  return new Promise((resolve) => {
    const credentials = question.ca
      ? grpc.credentials.createSsl(
          fs.readFileSync(question.ca),
          question.key ? fs.readFileSync(question.key) : null,
          question.cert ? fs.readFileSync(question.cert) : null,
        )
      : grpc.credentials.createInsecure();
    // Without this option channels to the same target would share their connections.
    const client = new grpc.Client(question.target, credentials, { 'grpc.use_local_subchannel_pool': 1 });
    const metadata = new grpc.Metadata();
    if (question.token) {
      metadata.set('authorization', `Bearer ${question.token}`);
    }
    const answer = { code: 0, status: 0, message: '', metadata: {} };
    const call = client.makeUnaryRequest(
      CHECK,
      (service) => request(service),
      (bytes) => status(bytes),
      question.service,
      metadata,
      { deadline: Date.now() + question.seconds * 1000 },
      (error, value) => {
        if (error) {
          answer.code = error.code;
          answer.message = error.details;
        } else {
          answer.status = value;
        }
      },
    );
    call.on('metadata', (initial) => merge(answer.metadata, initial));
    call.on('status', (end) => {
      merge(answer.metadata, end.metadata);
      client.close();
      // The callback comes in the same turn as this event, before or after it.
      setImmediate(() => resolve(answer));
    });
  });
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await ask(JSON.parse(line)))}\n`);
  }
})();
