//! HTTP/1.1 as far as two pages need it: what a request asks for, and the bytes of an answer.

/// What one may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Metrics,
    Health,
}

/// What a request's bytes come to, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// They are no whole request yet.
    More,
    Page(Page),
    /// To be told so, and nothing else.
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotUnderstood,
    NoSuchPage,
    Method,
    TooSlow,
    TooLong,
}

/// More headers than anybody sends.
const HEADERS_MAX: usize = 64;

/// Looks at what has come of a request.
pub(super) fn parse(bytes: &[u8], request_bytes_max: usize) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() < request_bytes_max => return Asked::More,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Asked::Refused(Refusal::TooLong);
        }
        Err(_) => return Asked::Refused(Refusal::NotUnderstood),
    }
    // Whoever speaks 1.1 names the host.
    let names_host = request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("host"));
    if request.version == Some(1) && !names_host {
        return Asked::Refused(Refusal::NotUnderstood);
    }
    let target = request.path.unwrap_or("");
    let page = match target.split(['?', '#']).next() {
        Some("/metrics") => Page::Metrics,
        Some("/health") => Page::Health,
        _ => return Asked::Refused(Refusal::NoSuchPage),
    };
    if request.method == Some("GET") { Asked::Page(page) } else { Asked::Refused(Refusal::Method) }
}

/// The bytes of an answer, after which the connection is closed.
pub(super) fn answer(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    with_header(status, content_type, "", body)
}

/// Those of a refusal.
pub(super) fn refusal(refusal: Refusal) -> Vec<u8> {
    let (status, header, body) = match refusal {
        Refusal::NotUnderstood => ("400 Bad Request", "", "this is no request of HTTP/1.1\n"),
        Refusal::NoSuchPage => ("404 Not Found", "", "there are /metrics and /health\n"),
        Refusal::Method => ("405 Method Not Allowed", "Allow: GET\r\n", "only GET\n"),
        Refusal::TooSlow => ("408 Request Timeout", "", "no whole request came in time\n"),
        Refusal::TooLong => ("431 Request Header Fields Too Large", "", "the request is too long\n"),
    };
    with_header(status, "text/plain; charset=utf-8", header, body)
}

fn with_header(status: &str, content_type: &str, header: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{header}Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn asks(request: &str, expected: Asked) {
        assert_eq!(parse(request.as_bytes(), 1024), expected, "{request:?}");
        // Whatever is whole is so at its last byte alone.
        if matches!(expected, Asked::Page(_)) {
            for len in 0..request.len() {
                assert_eq!(parse(&request.as_bytes()[..len], 1024), Asked::More, "{:?}", &request[..len]);
            }
        }
    }

    #[test]
    fn requests_are_taken_apart() {
        let refused = Asked::Refused;
        asks("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Asked::Page(Page::Metrics));
        asks("GET /health HTTP/1.0\r\n\r\n", Asked::Page(Page::Health));
        asks("GET /metrics?a=b HTTP/1.1\r\nAccept: */*\r\nhOST: a\r\n\r\n", Asked::Page(Page::Metrics));
        asks("GET /metrics/ HTTP/1.1\r\nHost: a\r\n\r\n", refused(Refusal::NoSuchPage));
        asks("GET / HTTP/1.1\r\nHost: a\r\n\r\n", refused(Refusal::NoSuchPage));
        asks("POST /none HTTP/1.1\r\nHost: a\r\n\r\n", refused(Refusal::NoSuchPage));
        asks("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", refused(Refusal::Method));
        asks("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n", refused(Refusal::Method));
        asks("GET /metrics HTTP/1.1\r\n\r\n", refused(Refusal::NotUnderstood));
        asks("GET /metrics HTTP/2.0\r\nHost: a\r\n\r\n", refused(Refusal::NotUnderstood));
        asks("GET /metrics\r\n\r\n", refused(Refusal::NotUnderstood));
        asks("\u{1}\u{2}\u{3}", refused(Refusal::NotUnderstood));
        asks("GET /metrics HTTP/1.1\r\nHost\u{0}: a\r\n\r\n", refused(Refusal::NotUnderstood));
        asks(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(1024)), refused(Refusal::TooLong));
        asks(&format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(65)), refused(Refusal::TooLong));
    }

    /// Whatever comes, it is looked at without harm.
    #[test]
    fn garbage_does_no_harm() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut verdicts = [0; 3];
        for _ in 0..20_000 {
            let mut bytes = b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n".to_vec();
            for _ in 0..1 + state % 5 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 16) as u8;
            }
            // Half of them torn.
            bytes.truncate(if state & 1 == 0 { bytes.len() } else { (state >> 48) as usize % 50 });
            match parse(&bytes, 1024) {
                Asked::More => verdicts[0] += 1,
                Asked::Page(_) => verdicts[1] += 1,
                Asked::Refused(_) => verdicts[2] += 1,
            }
        }
        assert!(verdicts.iter().all(|count| *count > 100), "{verdicts:?}");
    }

    #[test]
    fn an_answer_says_how_long_it_is_and_that_it_is_the_last() {
        let text = String::from_utf8(answer("200 OK", "text/plain", "ok\n")).expect("text");
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
        assert_eq!(text, expected);
        let text = String::from_utf8(refusal(Refusal::Method)).expect("text");
        assert!(
            text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && text.contains("\r\nAllow: GET\r\n"),
            "{text}"
        );
    }
}
