//! Tests with random streams: valid ones are read as they were meant, and the reader survives all
//! others.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// An opcode and a payload.
type ControlFrame = (u8, Vec<u8>);

/// A control frame that may stand anywhere.
fn any_control() -> impl Strategy<Value = ControlFrame> {
    (prop_oneof![Just(PING), Just(PONG)], prop::collection::vec(any::<u8>(), 0..=125))
}

/// A message, the places at which it is cut into fragments, and the control frames between these.
#[derive(Clone, Debug)]
struct Sent {
    text: Option<String>,
    bytes: Vec<u8>,
    cuts: Vec<(Index, Option<ControlFrame>)>,
    mask: [u8; 4],
}

fn any_message() -> impl Strategy<Value = Sent> {
    let bytes = prop_oneof![
        "\\PC{0,80}".prop_map(|text| (Some(text.clone()), text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (None, bytes)),
    ];
    let cuts = prop::collection::vec((any::<Index>(), prop::option::of(any_control())), 0..5);
    (bytes, cuts, any::<[u8; 4]>()).prop_map(|((text, bytes), cuts, mask)| Sent {
        text,
        bytes,
        cuts,
        mask,
    })
}

impl Sent {
    /// Appends the frames to `wire`, and to `got` what they are to be read as.
    fn put(self, wire: &mut Vec<u8>, got: &mut Vec<Got>) {
        let mut cuts: Vec<_> = self
            .cuts
            .iter()
            .map(|(at, control)| (at.index(self.bytes.len() + 1), control))
            .collect();
        cuts.sort_by_key(|(at, _)| *at);
        let mut kind = if self.text.is_some() { TEXT } else { BINARY };
        let mut start = 0;
        for (end, control) in cuts {
            wire.extend(frame_masked(kind, &self.bytes[start..end], self.mask));
            if let Some((op, payload)) = control {
                wire.extend(frame(FIN | op, payload));
                let control = if *op == PING { Got::Ping } else { Got::Pong };
                got.push(control(payload.clone()));
            }
            (kind, start) = (CONTINUATION, end);
        }
        wire.extend(frame_masked(FIN | kind, &self.bytes[start..], self.mask));
        got.push(self.text.map_or(Got::Binary(self.bytes), Got::Text));
    }
}

/// Cuts `bytes` at these places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| &bytes[start..*end]).collect()
}

/// Frames that are mostly well-formed, so that random bytes come past the first header.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => (prop::sample::select(vec![TEXT, BINARY, CONTINUATION]), any::<bool>())
            .prop_map(|(op, fin)| if fin { FIN | op } else { op }),
        2 => prop::sample::select(vec![FIN | PING, FIN | PONG]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        4 => "\\PC{0,150}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..400),
    ];
    (first, payload).prop_map(|(first, payload)| frame(first, &payload))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_sent_is_what_is_read_whatever_the_cuts(
        messages in prop::collection::vec(any_message(), 0..6),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let (mut wire, mut got) = (vec![], vec![]);
        messages.into_iter().for_each(|message| message.put(&mut wire, &mut got));
        let client = after(pieces(&wire, &cuts));
        prop_assert_eq!(client.violation, None);
        prop_assert_eq!(client.got, got);
        prop_assert!(client.reader.partial.is_none());
    }

    #[test]
    fn no_bytes_panic_or_hold_more_than_the_limits(
        frames in prop::collection::vec(any_frame(), 0..20),
        noise in prop::collection::vec(any::<u8>(), 0..40),
        cuts in prop::collection::vec(any::<Index>(), 0..40),
    ) {
        let bytes = [frames.concat(), noise].concat();
        let mut client = Client::default();
        for piece in pieces(&bytes, &cuts) {
            client.send(piece);
            prop_assert!(client.held() <= LIMITS.max_message + 250);
        }
        let whole = after([&bytes]);
        let single = after(bytes.chunks(1));
        prop_assert_eq!(&client.got, &whole.got);
        prop_assert_eq!(client.violation, whole.violation);
        prop_assert_eq!(single.code(), whole.code());
        prop_assert_eq!(&single.got, &whole.got);
    }
}
