// A real browser: Chromium with a page of Echo and pusher-js, as a Laravel application serves it.

import assert from 'node:assert/strict';
import path from 'node:path';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { APP, Gateway, fact } from '../harness.mjs';
import { LaravelApp } from '../laravel.mjs';
import { launched } from './chromium.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const MODULES = path.join(HERE, '../node_modules');
const HEARD_MS = 20_000;

const gateway = await Gateway.start();
const guarded = await Gateway.start({ allowedOrigins: ['app.example.com'] });
const publisher = gateway.publisher();
const app = await LaravelApp.start(publisher, {
    '/': path.join(HERE, 'page.html'),
    '/pusher.js': path.join(MODULES, 'pusher-js/dist/web/pusher.min.js'),
    '/echo.js': path.join(MODULES, 'laravel-echo/dist/echo.iife.js'),
    '/favicon.ico': Buffer.alloc(0),
});
const { browser, close } = await launched();
after(async () => {
    await close();
    await app.stop();
    await guarded.stop();
    await gateway.stop();
});

fact('a page subscribes through its auth endpoint and hears an event', async (t) => {
    const ann = await opened(t, 'ann');
    await heard(ann, 'subscribed');
    assert.equal(await ann.evaluate('Echo.connector.pusher.connection.state'), 'connected');
    const data = { order: 1, note: 'Grüße, 世界/🦀' };
    await publisher.trigger('private-orders.1', 'App\\Events\\OrderShipped', data);
    assert.deepEqual(await heard(ann, 'event'), data);
});

fact('two pages see each other join, whisper and leave', async (t) => {
    const ann = await opened(t, 'ann');
    assert.deepEqual(await heard(ann, 'here'), [{ name: 'ANN' }]);

    const ben = await opened(t, 'ben');
    const here = await heard(ben, 'here');
    assert.deepEqual(here.map(({ name }) => name).sort(), ['ANN', 'BEN']);
    assert.deepEqual(await heard(ann, 'joining'), { name: 'BEN' });

    await ben.evaluate("Echo.join('room').whisper('typing', { at: 'the keyboard' })");
    assert.deepEqual(await heard(ann, 'whisper'), { at: 'the keyboard' });

    // Closing the tab says no goodbye in the protocol: the gateway notices the socket's end.
    await ben.close();
    assert.deepEqual(await heard(ann, 'leaving'), { name: 'BEN' });
});

fact('a page of an origin that is not allowed is refused with 4009', async (t) => {
    const page = await opened(t, 'ann', guarded);
    const { error } = await heard(page, 'connection error');
    assert.equal(error.data.code, 4009);
    assert.equal(await page.evaluate('Echo.connector.pusher.connection.state'), 'disconnected');
});

async function opened(t, user, to = gateway) {
    const page = await browser.newPage();
    t.after(() => page.close());
    page.on('pageerror', (error) => console.error(`the page of ${user}: ${error.message}`));
    await page.goto(`${app.url}/?key=${APP.key}&port=${to.port}&user=${user}`);
    return page;
}

/** Waits for an entry of the page's record. If it never comes, fails with the entries that came. */
async function heard(page, what) {
    const arrived = page.waitForFunction(
        (name) => window.heard.find((each) => each.what === name),
        what,
        { timeout: HEARD_MS },
    );
    try {
        const { payload } = await (await arrived).jsonValue();
        return payload;
    } catch (error) {
        const instead = await page.evaluate('JSON.stringify(window.heard)');
        throw new Error(`the page did not hear ${what}, but ${instead}`, { cause: error });
    }
}
