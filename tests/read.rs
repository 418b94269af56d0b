//! Every message of a stream, read from its leader.

use async_nats::jetstream::Context;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;

/// The messages whose subjects fit `filter`, in order.
///
/// Each is asked of the leader. A consumer would not do: it may run on a node that is still catching up, and its count of
/// what is left includes messages that are erased before they come.
pub async fn read_stream(context: &Context, stream: &str, filter: &str) -> Vec<StreamMessage> {
    let stream = context.get_stream(stream).await.unwrap();
    let (mut messages, mut from) = (Vec::new(), 1);
    loop {
        match stream.get_first_raw_message_by_subject(filter, from).await {
            Ok(message) => {
                from = message.sequence + 1;
                messages.push(message);
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return messages,
            Err(error) => panic!("{filter} cannot be read: {error}"),
        }
    }
}
