//! Errors that do not pass: the batch fails, as not written, and what comes next goes on.

use std::time::Duration;

use super::world::World;
use super::{Watch, config, finish, no_memory_leaked, options, send_one};
use crate::error::{DeliveryErrorKind, Written};
use crate::sender::Command;
use crate::testing::{ErrorCode, Fault};

/// The second batch meets the error, sent once; the third is delivered.
fn fails_alone(error: ErrorCode, kind: DeliveryErrorKind) {
    for idempotent in [true, false] {
        let (options, watch) =
            Watch::on(options(1), move |context| if context.nth == 1 { Fault::Error(error) } else { Fault::None });
        let mut world = World::new(80, options, config().linger(Duration::ZERO).enable_idempotence(idempotent));
        let topic = world.topic("t");
        let free = world.accumulator.free();
        for number in 0..3 {
            let delivery = [send_one(&mut world, &topic, 1, number)];
            match finish(&mut world, &delivery).remove(0) {
                Ok(_) => assert_ne!(number, 1),
                Err(failed) => {
                    assert_eq!((number, failed.kind()), (1, kind));
                    assert_eq!((failed.written(), failed.attempts()), (Written::No, 1), "{failed}");
                }
            }
        }
        assert_eq!(watch.len(), 3, "{error:?}");
        assert_eq!(world.log("t", 0), ["000000", "000002"]);
        no_memory_leaked(&mut world, free);
    }
}

#[test]
fn a_version_that_the_broker_does_not_know_fails_the_batch_alone() {
    fails_alone(ErrorCode::UNSUPPORTED_VERSION, DeliveryErrorKind::UnsupportedVersion);
}

#[test]
fn a_message_format_that_the_topic_does_not_take_fails_the_batch_alone() {
    fails_alone(
        ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT,
        DeliveryErrorKind::Broker(ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT),
    );
}

#[test]
fn a_topic_that_may_not_be_written_to_fails_the_batch_alone() {
    fails_alone(
        ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        DeliveryErrorKind::Broker(ErrorCode::TOPIC_AUTHORIZATION_FAILED),
    );
}

/// Not allowed to write to the cluster at all: each record says so, and close has nothing to wait for.
#[test]
fn without_the_clusters_permission_everything_fails_and_close_works() {
    let denied = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    let (options, watch) = Watch::on(options(1), move |_| Fault::Error(denied));
    let mut world = World::new(81, options, config().linger(Duration::ZERO));
    let topic = world.topic("t");
    let deliveries: Vec<_> = (0..10).map(|number| send_one(&mut world, &topic, 1, number)).collect();
    world.shared.command(Command::Close(Duration::from_secs(60)));
    let asked = world.now;
    world.run_while(|world| !world.sender.is_closed());
    let report = world.shared.report().unwrap();
    assert!(world.now - asked < Duration::from_secs(1) && report.is_clean(), "{report}");
    for outcome in finish(&mut world, &deliveries) {
        let failed = outcome.unwrap_err();
        assert_eq!((failed.kind(), failed.written()), (DeliveryErrorKind::Broker(denied), Written::No));
    }
    assert!((1..=10).contains(&watch.len()), "none was sent twice: {}", watch.len());
}
