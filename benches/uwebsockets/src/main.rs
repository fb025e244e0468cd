//! A server on uWebSockets that does for `ringwave storm` what the floor of `benches/fanout` does:
//! it answers the upgrade and the subscribe, passes a publish by `POST` to the subscribers of its
//! channel, and a client event to the others. uWebSockets parses HTTP and the frames, hashes the
//! key of a handshake and keeps the topics. Nothing checks a signature or reads the JSON as such.
//!
//! The messages of one turn of its loop reach a subscriber in one send, as they do with the
//! gateway. It listens on a free port of the loopback and prints its address.

use std::ffi::{c_char, c_int, c_void};
use std::io::Write;
use std::ptr::{null, null_mut};
use std::slice;

use libuwebsockets_sys as uws;

/// The first parameter of most functions: whether the app speaks TLS.
const NO_TLS: c_int = 0;

/// The bytes that may wait for a client, as with the gateway and the floor by default.
const BACKLOG_MAX: u32 = 1 << 20;

const LOOPBACK: &std::ffi::CStr = c"127.0.0.1";

const GREETING: &str = concat!(
    r#"{"event":"pusher:connection_established","#,
    r#""data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}"#
);
const SUBSCRIBED: &str = r#"{"event":"pusher_internal:subscription_succeeded","data":"{}"}"#;

fn main() {
    // SAFETY: the options are plain data, for which zeros mean "none". The app lives as long as the
    // process, and all functions are called on this thread.
    unsafe {
        let app = uws::uws_create_app(NO_TLS, std::mem::zeroed());
        assert!(!app.is_null(), "uWebSockets makes an app");
        let behavior = uws::uws_socket_behavior_t {
            maxPayloadLength: 64 * 1024,
            idleTimeout: 120,
            maxBackpressure: BACKLOG_MAX,
            closeOnBackpressureLimit: true,
            sendPingsAutomatically: true,
            upgrade: Some(upgrade),
            open: Some(open),
            message: Some(message),
            ..std::mem::zeroed()
        };
        uws::uws_ws(NO_TLS, app, c"/*".as_ptr(), behavior, null_mut());
        uws::uws_app_post(NO_TLS, app, c"/*".as_ptr(), Some(post), app.cast());
        let config = uws::uws_app_listen_config_t { port: 0, host: LOOPBACK.as_ptr(), options: 0 };
        uws::uws_app_listen_with_config(NO_TLS, app, config, Some(listening), null_mut());
        uws::uws_app_run(NO_TLS, app);
    }
}

unsafe extern "C" fn listening(
    socket: *mut uws::us_listen_socket_t,
    _config: uws::uws_app_listen_config_t,
    _none: *mut c_void,
) {
    assert!(!socket.is_null(), "a free port");
    // SAFETY: a listening socket of uSockets begins with a socket.
    let port = unsafe { uws::us_socket_local_port(NO_TLS, socket.cast()) };
    writeln!(std::io::stdout(), "127.0.0.1:{port}").expect("whoever started it reads");
}

unsafe extern "C" fn upgrade(
    response: *mut uws::uws_res_t,
    request: *mut uws::uws_req_t,
    context: *mut uws::uws_socket_context_t,
    _none: *mut c_void,
) {
    const KEY: &str = "sec-websocket-key";
    let mut key = null();
    // SAFETY: request, response and context are valid within this call, and the key with them. The
    // subprotocol and the extensions are empty strings.
    unsafe {
        let len = uws::uws_req_get_header(request, text(KEY), KEY.len(), &raw mut key);
        let (none, data) = (text(""), null_mut());
        uws::uws_res_upgrade(NO_TLS, response, data, key, len, none, 0, none, 0, context);
    }
}

unsafe extern "C" fn open(socket: *mut uws::uws_websocket_t, _none: *mut c_void) {
    // SAFETY: the socket is open.
    unsafe { send(socket, GREETING) };
}

unsafe extern "C" fn message(
    socket: *mut uws::uws_websocket_t,
    payload: *const c_char,
    len: usize,
    _opcode: uws::uws_opcode_t,
    _none: *mut c_void,
) {
    // SAFETY: the payload is valid within this call, and the socket is open. The library copies
    // names of topics and messages that outlive a call.
    unsafe {
        let bytes = bytes(payload, len);
        let name = channel(bytes);
        let topic = name.as_ptr().cast();
        if bytes.starts_with(br#"{"event":"pusher:subscribe""#) {
            uws::uws_ws_subscribe(NO_TLS, socket, topic, name.len());
            send(socket, SUBSCRIBED);
        } else if bytes.starts_with(br#"{"event":"client-"#) {
            let op = uws::uws_opcode_t_TEXT;
            uws::uws_ws_publish_with_options(
                NO_TLS,
                socket,
                topic,
                name.len(),
                payload,
                len,
                op,
                false,
            );
        }
    }
}

/// A request whose body has not come to its end.
struct Publish {
    app: *mut uws::uws_app_t,
    /// The body so far, if it came in pieces.
    body: Vec<u8>,
}

unsafe extern "C" fn post(
    response: *mut uws::uws_res_t,
    _request: *mut uws::uws_req_t,
    app: *mut c_void,
) {
    let publish = Box::new(Publish { app: app.cast(), body: Vec::new() });
    let publish = Box::into_raw(publish).cast();
    // SAFETY: the response is valid until it is answered or aborted. The library calls one of the
    // two functions last, and only once, and that one frees the memory.
    unsafe {
        uws::uws_res_on_data(NO_TLS, response, Some(body), publish);
        uws::uws_res_on_aborted(NO_TLS, response, Some(aborted), publish);
    }
}

unsafe extern "C" fn body(
    response: *mut uws::uws_res_t,
    chunk: *const c_char,
    len: usize,
    is_end: bool,
    publish: *mut c_void,
) {
    const ANSWER: &str = "{}";
    // SAFETY: `publish` comes from `post` and is freed with the end of the body, behind which the
    // library calls nothing for this request. The chunk is valid within this call.
    unsafe {
        let publish: *mut Publish = publish.cast();
        let chunk = bytes(chunk, len);
        if !is_end {
            (*publish).body.extend_from_slice(chunk);
            return;
        }
        let mut publish = Box::from_raw(publish);
        let body = if publish.body.is_empty() {
            chunk
        } else {
            publish.body.extend_from_slice(chunk);
            &publish.body
        };
        let (name, payload) = (channel(body), body.as_ptr().cast());
        let (topic, op) = (name.as_ptr().cast(), uws::uws_opcode_t_TEXT);
        uws::uws_publish(NO_TLS, publish.app, topic, name.len(), payload, body.len(), op, false);
        uws::uws_res_end(NO_TLS, response, text(ANSWER), ANSWER.len(), false);
    }
}

unsafe extern "C" fn aborted(_response: *mut uws::uws_res_t, publish: *mut c_void) {
    // SAFETY: `publish` comes from `post`, and nothing else uses it any more.
    drop(unsafe { Box::from_raw(publish.cast::<Publish>()) });
}

/// Sends a text message.
///
/// # Safety
/// The socket is open.
unsafe fn send(socket: *mut uws::uws_websocket_t, message: &str) {
    // SAFETY: the library copies what it cannot send at once.
    unsafe {
        uws::uws_ws_send(NO_TLS, socket, text(message), message.len(), uws::uws_opcode_t_TEXT);
    }
}

/// The bytes that the library passes to a function.
///
/// # Safety
/// `start` names `len` bytes that stay as they are for the lifetime that the caller chooses, or
/// `len` is zero.
unsafe fn bytes<'a>(start: *const c_char, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller vouches for it.
    unsafe { slice::from_raw_parts(start.cast(), len) }
}

const fn text(text: &str) -> *const c_char {
    text.as_ptr().cast()
}

/// The name in a `channel` field; empty without one.
fn channel(json: &[u8]) -> &[u8] {
    const FIELD: &[u8] = br#""channel":""#;
    let Some(at) = json.windows(FIELD.len()).position(|window| window == FIELD) else { return b"" };
    json[at + FIELD.len()..].split(|byte| *byte == b'"').next().unwrap_or_default()
}
