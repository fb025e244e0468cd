//! The paths of the endpoints. Every path works with and without the configured prefix: PHP clients
//! that resolve `apps/…` against a base URL without a trailing slash lose the prefix. Several
//! leading slashes count as one, as in Reverb, before the prefix and behind it.

use std::borrow::Cow;

use hyper::Method;
use percent_encoding::percent_decode_str;

use crate::counters::ApiRoute;
use crate::protocol::signing::collapsed;

/// The target of a request. Segments are percent-decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// `/up`: the health check.
    Up,
    /// `/app/{key}`: a WebSocket. The key is the rest of the path: pusher-js does not encode the
    /// slashes of a base64 key, and nginx decodes those that are encoded.
    WebSocket {
        /// The app's public key.
        key: Cow<'p, str>,
    },
    /// `/apps/{app_id}/…`: the HTTP API.
    Api {
        /// The id in the path; there may be no such app.
        app_id: Cow<'p, str>,
        /// The endpoint of the app's API that is requested.
        endpoint: Endpoint<'p>,
    },
}

/// An endpoint of an app's HTTP API.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'p> {
    /// Publish one event.
    Events,
    /// Publish several events.
    BatchEvents,
    /// List the occupied channels.
    Channels,
    /// Describe this channel.
    Channel(Cow<'p, str>),
    /// List the users of this presence channel.
    Users(Cow<'p, str>),
    /// Close the connections of this user.
    Terminate(Cow<'p, str>),
    /// Count the connections.
    Connections,
}

impl<'p> Route<'p> {
    /// Finds the route of a path as received.
    pub(super) fn of(path: &'p str, prefix: &str) -> Option<Self> {
        let path = collapsed(path);
        let below = || path.strip_prefix(prefix).map(collapsed);
        Self::of_bare(path)
            .or_else(|| Self::of_bare(below()?))
            // These come last, because a path with a meaning of its own is no key.
            .or_else(|| Self::of_key_with_slashes(below()?))
            .or_else(|| Self::of_key_with_slashes(path))
    }

    fn of_key_with_slashes(path: &'p str) -> Option<Self> {
        let key = path.strip_prefix("/app/")?;
        // A slash at either end is more likely a proxy's mistake than a part of the key.
        let inside = !key.starts_with('/') && !key.ends_with('/');
        decoded(key).filter(|_| inside).map(|key| Self::WebSocket { key })
    }

    fn of_bare(path: &'p str) -> Option<Self> {
        // The path is split before it is decoded, because an encoded slash is part of its segment.
        let mut segments = path.strip_prefix('/')?.split('/');
        // The outer `None` is a segment without text, the inner `None` the end of the path.
        let mut next = || segments.next().map_or(Some(None), |segment| decoded(segment).map(Some));
        let first = next()??;
        let (second, third, fourth, fifth) = (next()?, next()?, next()?, next()?);
        if next()?.is_some() {
            return None;
        }
        match (&*first, second, third, fourth, fifth) {
            ("up", None, None, None, None) => Some(Self::Up),
            ("app", Some(key), None, None, None) => Some(Self::WebSocket { key }),
            ("apps", Some(app_id), Some(noun), name, verb) => {
                let endpoint = Endpoint::of(&noun, name, verb.as_deref())?;
                Some(Self::Api { app_id, endpoint })
            }
            _ => None,
        }
    }

    /// The methods that are served, as in an `Allow` header.
    pub(super) const fn methods(&self) -> &'static str {
        match self {
            Self::WebSocket { .. } => "GET",
            Self::Api { endpoint, .. } if endpoint.is_command() => "POST",
            Self::Api { .. } => "GET, HEAD",
            Self::Up => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether this method is served.
    pub(super) fn serves(&self, method: &Method) -> bool {
        self.methods().split(", ").any(|served| served == method.as_str())
    }
}

impl<'p> Endpoint<'p> {
    /// The route that its requests are counted by.
    pub(super) const fn counted_as(&self) -> ApiRoute {
        match self {
            Self::Events => ApiRoute::Events,
            Self::BatchEvents => ApiRoute::BatchEvents,
            Self::Channels => ApiRoute::Channels,
            Self::Channel(_) => ApiRoute::Channel,
            Self::Users(_) => ApiRoute::Users,
            Self::Terminate(_) => ApiRoute::Terminate,
            Self::Connections => ApiRoute::Connections,
        }
    }

    fn of(noun: &str, name: Option<Cow<'p, str>>, verb: Option<&str>) -> Option<Self> {
        match (noun, name, verb) {
            ("events", None, None) => Some(Self::Events),
            ("batch_events", None, None) => Some(Self::BatchEvents),
            ("connections", None, None) => Some(Self::Connections),
            ("channels", None, None) => Some(Self::Channels),
            ("channels", Some(channel), None) => Some(Self::Channel(channel)),
            ("channels", Some(channel), Some("users")) => Some(Self::Users(channel)),
            ("users", Some(user), Some("terminate_connections")) => Some(Self::Terminate(user)),
            _ => None,
        }
    }

    /// Whether the endpoint changes something. Its requests have a body.
    pub(super) const fn is_command(&self) -> bool {
        matches!(self, Self::Events | Self::BatchEvents | Self::Terminate(_))
    }
}

/// Decodes a segment. Returns `None` if it is empty or not UTF-8.
fn decoded(segment: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(segment).decode_utf8().ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api<'p>(app_id: &'p str, endpoint: Endpoint<'p>) -> Option<Route<'p>> {
        Some(Route::Api { app_id: app_id.into(), endpoint })
    }

    #[test]
    fn every_route_is_found_with_and_without_the_prefix() {
        let routes = [
            ("/up", Some(Route::Up)),
            ("/app/key", Some(Route::WebSocket { key: "key".into() })),
            ("/apps/1/events", api("1", Endpoint::Events)),
            ("/apps/1/batch_events", api("1", Endpoint::BatchEvents)),
            ("/apps/1/channels", api("1", Endpoint::Channels)),
            ("/apps/1/channels/c", api("1", Endpoint::Channel("c".into()))),
            ("/apps/1/channels/c/users", api("1", Endpoint::Users("c".into()))),
            ("/apps/1/users/u/terminate_connections", api("1", Endpoint::Terminate("u".into()))),
            ("/apps/1/connections", api("1", Endpoint::Connections)),
        ];
        for (path, route) in routes {
            assert_eq!(Route::of(path, "/ws"), route, "{path}");
            assert_eq!(Route::of(path, ""), route, "{path}");
            assert_eq!(Route::of(&format!("/ws{path}"), "/ws"), route, "{path}");
            assert_eq!(Route::of(&format!("/ws{path}"), ""), None, "{path}");
            assert_eq!(Route::of(&format!("{path}/"), "/ws"), None, "{path}");
        }
    }

    #[test]
    fn leading_slashes_count_as_one_before_the_prefix_and_behind_it() {
        for path in ["/up", "/app/key", "/apps/1/events", "/apps/1/channels/c/users"] {
            let route = Route::of(path, "");
            assert!(route.is_some(), "{path}");
            for sent in [format!("/{path}"), format!("//{path}")] {
                assert_eq!(Route::of(&sent, ""), route, "{sent}");
                assert_eq!(Route::of(&sent, "/ws"), route, "{sent}");
            }
            for sent in [format!("//ws{path}"), format!("/ws/{path}"), format!("///ws//{path}")] {
                assert_eq!(Route::of(&sent, "/ws"), route, "{sent}");
            }
        }
        assert_eq!(Route::of("//app//key", ""), None, "slashes elsewhere are not collapsed");
        assert_eq!(Route::of("/apps//1/events", ""), None, "slashes elsewhere are not collapsed");
    }

    #[test]
    fn a_key_is_the_rest_of_the_path_encoded_or_not() {
        let key = "base64:a+b/c/d=";
        for sent in ["base64:a+b/c/d=", "base64%3Aa%2Bb%2Fc%2Fd%3D", "base64:a+b%2fc/d="] {
            for prefix in ["", "/ws", "/app", "/apps"] {
                let path = format!("{prefix}/app/{sent}");
                let route = Route::of(&path, prefix);
                assert_eq!(route, Some(Route::WebSocket { key: key.into() }), "{path}");
            }
        }
        let key = |path| match Route::of(path, "/app") {
            Some(Route::WebSocket { key }) => key.into_owned(),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(key("/app/50%"), "50%", "no escape: as it is");
        assert_eq!(key("/app/app/k/x"), "k/x", "below the prefix");
        assert_eq!(Route::of("/app/apps/1/events", "/app"), api("1", Endpoint::Events));
        assert_eq!(Route::of("/app/up", "/app"), Some(Route::WebSocket { key: "up".into() }));
        for path in ["/app/", "/app/k/", "/app//k", "/app/k/x/"] {
            assert_eq!(Route::of(path, ""), None, "{path}");
        }
    }

    #[test]
    fn segments_are_decoded_after_the_split() {
        let path = "/apps/1/channels/presence-a%2Fb%40%C3%BC/users";
        assert_eq!(Route::of(path, ""), api("1", Endpoint::Users("presence-a/b@ü".into())));
        assert_eq!(Route::of("/apps/1%2Fevents", ""), None);
        assert_eq!(Route::of("/app/%ff", ""), None, "not UTF-8");
    }

    #[test]
    fn other_paths_have_no_route() {
        for path in
            ["", "/", "//", "*", "/apps", "/apps/1", "/app", "/Up", "/wsup", "up", "/u//p", "/app/"]
        {
            assert_eq!(Route::of(path, "/ws"), None, "{path:?}");
        }
    }

    #[test]
    fn commands_are_posted_and_questions_are_asked() {
        for (path, methods) in [
            ("/up", "GET, HEAD, OPTIONS"),
            ("/app/key", "GET"),
            ("/apps/1/events", "POST"),
            ("/apps/1/batch_events", "POST"),
            ("/apps/1/users/u/terminate_connections", "POST"),
            ("/apps/1/channels/c/users", "GET, HEAD"),
        ] {
            let route = Route::of(path, "").unwrap();
            assert_eq!(route.methods(), methods, "{path}");
            assert_eq!(route.serves(&Method::POST), methods == "POST", "{path}");
            assert_eq!(route.serves(&Method::OPTIONS), route == Route::Up, "{path}");
        }
    }
}
