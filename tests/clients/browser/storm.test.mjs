// The page that `ringwave storm --report` writes, on a phone.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { after } from 'node:test';
import { pathToFileURL } from 'node:url';
import { APP, Gateway, binary, fact } from '../harness.mjs';
import { launched } from './chromium.mjs';

// The width of the phones that are sold most.
const PHONE = { width: 390, height: 844 };
// A name as long as real ones get, without a place to break at.
const LONG_NAME = `${'a-report-with-a-long-name-'.repeat(6)}.html`;

const gateway = await Gateway.start();
const { browser, close } = await launched({ viewport: PHONE, deviceScaleFactor: 1 });
after(async () => {
    await close();
    await gateway.stop();
});

fact('the report of a storm fits into a phone, its plots and labels uncut', async () => {
    const report = path.join(gateway.directory, LONG_NAME);
    const flags = ['-n', '20', '-r', '50', '-d', '1.5', '--pid', gateway.process.pid];
    const app = ['--app-id', APP.id, '--key', APP.key, '--secret', APP.secret];
    const server = ['--url', `ws://127.0.0.1:${gateway.port}`, '--report', report];
    execFileSync(binary(), ['storm', 'fanout', ...flags, ...app, ...server].map(String));
    const page = await browser.newPage();
    await page.goto(pathToFileURL(report).href);

    assert.ok((await page.locator('svg').count()) >= 5);
    assert.ok(!(await page.content()).includes(APP.secret));
    const wide = await page.evaluate((width) => {
        const boxes = [...document.querySelectorAll('h1, th, td, svg, svg text, svg polyline')];
        const outside = boxes.filter((box) => {
            const { left, right } = box.getBoundingClientRect();
            return left < 0 || right > width;
        });
        return outside.map((box) => `${box.tagName}: ${box.textContent}`);
    }, PHONE.width);
    assert.deepEqual(wide, []);
    const scrolled = await page.evaluate('document.documentElement.scrollWidth');
    assert.ok(scrolled <= PHONE.width, `the page is ${scrolled} pixels wide`);
    const smallest = await page.evaluate(() =>
        Math.min(...[...document.querySelectorAll('svg text')].map((text) => {
            const svg = text.ownerSVGElement;
            const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
            return scale * Number.parseFloat(getComputedStyle(text).fontSize);
        })),
    );
    assert.ok(smallest >= 9, `labels of ${smallest} pixels cannot be read`);
});
