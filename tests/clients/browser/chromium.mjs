// The installed Chromium, without anything that would reach out of this host.

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { firstExisting } from '../harness.mjs';

/** Starts one with a profile of its own, which `close` removes. `options` are those of Playwright. */
export async function launched(options = {}) {
    const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'ringwave-browser-'));
    const browser = await chromium.launchPersistentContext(profile, {
        executablePath: firstExisting('Chromium', [
            process.env.CHROMIUM,
            '/usr/bin/chromium',
            '/usr/bin/chromium-browser',
            '/usr/bin/google-chrome',
        ]),
        headless: true,
        args: [
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
            '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
        ],
        ...options,
    });
    const close = async () => {
        await browser.close();
        fs.rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
    };
    return { browser, close };
}
