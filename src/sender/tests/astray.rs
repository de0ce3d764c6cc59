//! A copy that left whole on a connection that ended without an answer may still be on its way to a broker that was
//! stopped, or in a proxy. That a later copy was out of order does not settle it. Found by ci/chaos.sh --impatient.

use std::time::Duration;

use super::world::World;
use super::{MS, config, finish, options, send_all};
use crate::error::Written;
use crate::testing::{ErrorCode, Fault};

/// The first record opens the window; the second meets `first` when it is sent first, is out of order the second time,
/// and then refused until its time is over.
fn told(first: Fault) -> Written {
    let options = options(1).on_produce(move |context| match context.nth {
        0 => Fault::None,
        1 => first,
        2 => Fault::Error(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
        _ => Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS),
    });
    // It waits most of the time: what is in flight when its time is over is possibly written anyhow.
    let config = config().linger(Duration::ZERO).delivery_timeout(3000 * MS).retry_backoff(400 * MS, 400 * MS);
    let mut world = World::new(1, options, config);
    let topic = world.topic("t");
    let opening = send_all(&mut world, &topic, 1, 0..1, Duration::ZERO);
    assert!(finish(&mut world, &opening)[0].is_ok());
    let second = send_all(&mut world, &topic, 1, 1..2, Duration::ZERO);
    let outcomes = finish(&mut world, &second);
    let error = outcomes[0].as_ref().unwrap_err();
    assert!(error.attempts() > 2, "{error}");
    error.written()
}

#[test]
fn a_copy_without_an_answer_may_still_arrive() {
    for silence in [Fault::HangBefore, Fault::CloseBefore] {
        assert_eq!(told(silence), Written::Possibly, "{silence:?}");
    }
}

#[test]
fn where_every_copy_was_refused_it_is_not_written() {
    for refusal in [ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::NOT_ENOUGH_REPLICAS] {
        assert_eq!(told(Fault::Error(refusal)), Written::No, "{refusal:?}");
    }
}
