// Autobahn's test suite of RFC 6455 against the gateway, by way of the shim.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';
import { APP, Gateway, TARGET, fact, firstExisting } from '../harness.mjs';
import { startShim } from './shim.mjs';

const WSTEST = firstExisting("Autobahn's test suite (scripts/test installs it)", [
    path.join(TARGET, 'autobahn/bin/wstest'),
]);
const AGENT = 'ringwave';
// The largest message of the cases 9.
const MAX_MESSAGE_SIZE = String(16 * 1024 * 1024);
const PASSED = ['OK', 'NON-STRICT', 'INFORMATIONAL'];
// Both runs take a minute on two idle cores.
const CASES_MS = 220_000;

const gateway = await Gateway.start({ settings: { REVERB_APP_MAX_MESSAGE_SIZE: MAX_MESSAGE_SIZE } });
const shim = await startShim(gateway.port);
after(async () => {
    shim.close();
    await gateway.stop();
});

passes(247, 'framing, pings, reserved bits, opcodes, fragments, UTF-8, closing (1 to 7, 10)', [
    ...['1.*', '2.*', '3.*', '4.*', '5.*', '6.*', '7.*', '10.*'],
]);
passes(54, 'large messages, in small fragments and small segments (9)', ['9.*']);

function passes(count, what, cases) {
    const check = async (t) => {
        const verdicts = await judged(t, cases);
        assert.equal(verdicts.length, count, 'cases that ran');
        const suspects = verdicts.filter(failed);
        if (suspects.length === 0) return;
        // Autobahn waits a second of its own clock for an answer, however busy the machine is, so
        // failed cases run again: a real failure fails again.
        console.log(`once more, with less beside them: ${suspects.map(({ id }) => id).join(' ')}`);
        const again = await judged(t, suspects.map(({ id }) => id));
        assert.equal(again.length, suspects.length, 'cases that ran again');
        const failures = again.filter(failed).map(told);
        if (failures.length > 0) assert.fail(`these cases failed:\n${failures.join('\n')}`);
    };
    fact(`Autobahn's ${count} cases of ${what} pass`, check, { within: CASES_MS });
}

function failed({ behavior, behaviorClose }) {
    return !PASSED.includes(behavior) || !PASSED.includes(behaviorClose);
}

function told({ id, behavior, behaviorClose, report }) {
    const { description, expectation, result, resultClose } = report;
    const close = `${report.remoteCloseCode} ${report.remoteCloseReason}`;
    return [
        `${id}: ${behavior}, close ${behaviorClose}`,
        `  sent: ${description}`,
        `  expected: ${expectation}`,
        `  got: ${result}; ${resultClose}; close code ${close}`,
    ].join('\n');
}

/** Runs cases, which may be patterns, and answers Autobahn's verdict on each. */
async function judged(t, cases) {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwave-autobahn-'));
    t.after(() => fs.rmSync(directory, { recursive: true, force: true }));
    const url = `ws://127.0.0.1:${shim.address().port}/app/${APP.key}?protocol=7`;
    const specification = {
        outdir: directory,
        servers: [{ agent: AGENT, url }],
        cases,
        'exclude-cases': [],
        'exclude-agent-cases': {},
    };
    const file = path.join(directory, 'specification.json');
    fs.writeFileSync(file, JSON.stringify(specification));
    await ran(t, directory, ['--mode', 'fuzzingclient', '--spec', file]);
    const index = JSON.parse(fs.readFileSync(path.join(directory, 'index.json')))[AGENT];
    return Object.entries(index).map(([id, verdict]) => {
        const report = JSON.parse(fs.readFileSync(path.join(directory, verdict.reportfile)));
        return { id, ...verdict, report };
    });
}

function ran(t, cwd, options) {
    // Autobahn prints each case, and blocks if its output is not read.
    const log = path.join(cwd, 'log');
    const output = fs.openSync(log, 'w');
    const child = spawn(WSTEST, options, { cwd, stdio: ['ignore', output, output] });
    fs.closeSync(output);
    t.after(() => child.kill('SIGKILL'));
    return new Promise((resolve, reject) => {
        child.once('error', reject);
        child.once('exit', (code, signal) => {
            if (code === 0) return resolve();
            reject(new Error(`wstest ended with ${code ?? signal}:\n${fs.readFileSync(log)}`));
        });
    });
}
