//! As much gRPC as two calls need: unary requests over one HTTP/2 connection, and protobuf fields by hand.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

/// The bytes before a gRPC message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// One connection. Clones share it: each call is a stream of its own.
#[derive(Clone)]
pub(crate) struct Connection {
    server: SocketAddr,
    send: SendRequest<Bytes>,
}

impl Connection {
    /// Connects; the connection's own work is a task that ends with it.
    pub(crate) async fn open(server: SocketAddr) -> Result<Connection, String> {
        let failed = |what: &dyn std::fmt::Display| format!("cannot connect to {server}: {what}");
        let socket = TcpStream::connect(server).await.map_err(|error| failed(&error))?;
        socket.set_nodelay(true).map_err(|error| failed(&error))?;
        let (send, connection) = h2::client::handshake(socket).await.map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        Ok(Connection { server, send })
    }

    /// One unary call: the response's message, if the server's status is OK.
    pub(crate) async fn call(&mut self, method: &str, message: &[u8]) -> Result<Bytes, String> {
        let failed = |what: &dyn std::fmt::Display| format!("{method} failed: {what}");
        let request = Request::post(format!("http://{}{method}", self.server))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| failed(&error))?;
        let mut send = self.send.clone().ready().await.map_err(|error| failed(&error))?;
        let (response, mut stream) = send.send_request(request, false).map_err(|error| failed(&error))?;
        stream.send_data(framed(message), true).map_err(|error| failed(&error))?;
        let (head, mut body) = response.await.map_err(|error| failed(&error))?.into_parts();
        let mut answer = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(|error| failed(&error))?;
            body.flow_control().release_capacity(piece.len()).map_err(|error| failed(&error))?;
            answer.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await.map_err(|error| failed(&error))?;
        // A call that fails at once has its status among the head's fields, and no trailers.
        status(trailers.as_ref().unwrap_or(&head.headers)).map_err(|error| failed(&error))?;
        if answer.len() < PREFIX_BYTES {
            return Err(failed(&"the answer has no message"));
        }
        Ok(answer.freeze().slice(PREFIX_BYTES..))
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    frame.freeze()
}

fn status(fields: &HeaderMap) -> Result<(), String> {
    let text = |name| fields.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text("grpc-status") {
        Some(code) if code == "0" => Ok(()),
        Some(code) => Err(format!("grpc-status {code}: {}", text("grpc-message").unwrap_or_default())),
        None => Err("no grpc-status in the answer".to_owned()),
    }
}

/// Appends a field of protobuf's wire type 2: bytes, a string or a message.
pub(crate) fn put_bytes(message: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(message, u64::from(field << 3 | 2));
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// A field's value, as far as etcd's messages need one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// The first field with this number; `None` if there is none, or what comes before it is no protobuf.
pub(crate) fn field(mut message: &[u8], wanted: u32) -> Option<Value<'_>> {
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let value = match key & 7 {
            0 => Value::Varint(take_varint(&mut message)?),
            1 => Value::Bytes(message.split_off(..8)?),
            2 => {
                let len = usize::try_from(take_varint(&mut message)?).ok()?;
                Value::Bytes(message.split_off(..len)?)
            }
            5 => Value::Bytes(message.split_off(..4)?),
            _ => return None,
        };
        if key >> 3 == u64::from(wanted) {
            return Some(value);
        }
    }
    None
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_again() {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, b"key");
        put_bytes(&mut message, 2, &[7; 300]);
        message.extend_from_slice(&[4 << 3, 0x96, 0x01]);
        assert_eq!(&message[..5], b"\x0a\x03key");
        assert_eq!(field(&message, 1), Some(Value::Bytes(b"key")));
        assert_eq!(field(&message, 2), Some(Value::Bytes(&[7; 300])));
        assert_eq!(field(&message, 4), Some(Value::Varint(150)));
        assert_eq!(field(&message, 3), None);
    }

    #[test]
    fn a_message_cut_short_is_no_value() {
        let mut message = Vec::new();
        put_bytes(&mut message, 2, &[7; 300]);
        for len in 0..message.len() {
            assert_eq!(field(&message[..len], 2), None, "{len} bytes");
        }
    }
}
