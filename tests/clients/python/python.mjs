// Calls of the official library for Python, each in a process of its own.

import { execFile } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { APP, ENCRYPTION_KEY, TARGET, firstExisting } from '../harness.mjs';

const SCRIPT = path.join(path.dirname(fileURLToPath(import.meta.url)), 'publish.py');
const PYTHON = firstExisting('the Python environment (scripts/test makes it)', [
    path.join(TARGET, 'venv/bin/python'),
]);

/** Makes a call for the app of a gateway: `result`, or `error` and `message`. */
export function called(gateway, call, parameters, options = {}) {
    const client = {
        app_id: APP.id,
        key: APP.key,
        secret: APP.secret,
        ssl: false,
        host: '127.0.0.1',
        port: gateway.port,
        encryption_master_key_base64: ENCRYPTION_KEY,
        ...options,
    };
    return new Promise((resolve, reject) => {
        const child = execFile(PYTHON, [SCRIPT], { timeout: 15_000 }, (error, stdout, stderr) => {
            if (error) return reject(new Error(`${error.message}\n${stderr}`));
            resolve(JSON.parse(stdout));
        });
        child.stdin.end(JSON.stringify({ client, call, arguments: parameters }));
    });
}
