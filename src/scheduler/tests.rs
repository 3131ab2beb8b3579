//! Tests of the order of batches, and of the assignment of rows to calls.

use super::*;
use crate::{
    batch::Tokens,
    embedder::{EncodeOptions, Options},
};

fn embedder() -> Arc<Embedder> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-natural");
    let device = "cpu".parse().expect("a device");
    let options = Options { device, batch_tokens: Some(64), ..Options::default() };
    Arc::new(Embedder::open_with(dir, options).expect("a good fixture"))
}

fn work(embedder: &Embedder, lengths: &[usize]) -> EncoderInput {
    let tokens = lengths.iter().map(|&n| Tokens::new(vec![7; n])).collect();
    embedder.jobs().tokens(tokens, embedder.encode_options()).expect("good tokens").input
}

/// Creates a queue from the sequence lengths of each call, with a flag for short calls.
fn queue(embedder: &Embedder, calls: &[(&[usize], bool)]) -> Waiting {
    let mut queue = Waiting::default();
    for (number, &(lengths, short)) in calls.iter().enumerate() {
        let mut call = QueuedCall::new(work(embedder, lengths), short, Box::new(|_| ()));
        call.served = queue.clock;
        queue.calls.insert(number as u64, call);
    }
    queue
}

/// All batches in order, as pairs of call and sequence.
fn batches(queue: &mut Waiting, budget: usize) -> Vec<Vec<(u64, usize)>> {
    let batch = || {
        let batch = queue.pick(budget);
        (!batch.is_empty()).then(|| batch.iter().map(|m| (m.call, m.index)).collect())
    };
    iter::from_fn(batch).collect()
}

#[test]
fn short_calls_overtake_and_long_ones_still_have_every_second_batch() {
    let embedder = embedder();
    let long = (&[32; 4][..], false);
    let short = (&[40][..], true);
    let mut queue = queue(&embedder, &[long, short, short, short]);
    let expected =
        [vec![(1, 0)], vec![(0, 0), (0, 1)], vec![(2, 0)], vec![(0, 2), (0, 3)], vec![(3, 0)]];
    assert_eq!(batches(&mut queue, 64), expected);
}

#[test]
fn long_calls_take_turns() {
    let embedder = embedder();
    let long = (&[64; 3][..], false);
    let mut queue = queue(&embedder, &[long, long]);
    let order: Vec<u64> = batches(&mut queue, 64).iter().map(|batch| batch[0].0).collect();
    assert_eq!(order, [0, 1, 0, 1, 0, 1]);
    // A later call gets no credit for the time before.
    let mut queue = self::queue(&embedder, &[(&[64; 6], false)]);
    queue.pick(64);
    queue.pick(64);
    let mut late = QueuedCall::new(work(&embedder, &[64; 4]), false, Box::new(|_| ()));
    late.served = queue.clock;
    queue.calls.insert(1, late);
    let order: Vec<u64> = batches(&mut queue, 64).iter().map(|batch| batch[0].0).collect();
    assert_eq!(order, [0, 1, 0, 1, 0, 1, 0, 1]);
}

#[test]
fn calls_that_keep_coming_hold_up_nobody() {
    let embedder = embedder();
    let mut queue = queue(&embedder, &[(&[64; 5], false)]);
    let mut batches = Vec::new();
    for number in 1..40 {
        let mut late = QueuedCall::new(work(&embedder, &[64]), false, Box::new(|_| ()));
        late.served = queue.clock;
        queue.calls.insert(number, late);
        batches.extend(queue.pick(64).iter().map(|member| member.call));
    }
    let last = batches.iter().rposition(|&call| call == 0).expect("its batches");
    assert_eq!(batches.iter().filter(|&&call| call == 0).count(), 5);
    assert!(last < 25, "{batches:?}");
}

#[test]
fn batches_are_full_and_of_one_kind() {
    let embedder = embedder();
    let mut queue = queue(&embedder, &[(&[10, 50, 20], false), (&[30, 4, 90], false)]);
    // Longest first; the next call fills the room that is left.
    let expected = [vec![(0, 1)], vec![(1, 2)], vec![(0, 2), (0, 0), (1, 0), (1, 1)]];
    assert_eq!(batches(&mut queue, 64), expected);

    let options = EncodeOptions { normalize: false, ..embedder.encode_options() };
    let tokens = vec![Tokens::new(vec![7; 5])];
    let other = embedder.jobs().tokens(tokens, options).expect("good tokens").input;
    let mut queue = self::queue(&embedder, &[(&[5], true), (&[5], true)]);
    queue.calls.insert(2, QueuedCall::new(other, true, Box::new(|_| ())));
    queue.calls.insert(3, QueuedCall::new(work(&embedder, &[5]), true, Box::new(|_| ())));
    let expected = [vec![(0, 0), (1, 0), (3, 0)], vec![(2, 0)]];
    assert_eq!(batches(&mut queue, 64), expected);
}

#[test]
fn many_callers_get_their_own_rows() {
    let embedder = embedder();
    let scheduler = Scheduler::new(embedder.clone(), |_| ()).expect("a thread");
    let texts: Vec<Vec<String>> =
        (0..20).map(|n| (0..=n * 3 % 7).map(|m| format!("a {n} b {m}")).collect()).collect();
    let (sender, receiver) = std::sync::mpsc::channel();
    let guards: Vec<CancelGuard> = texts
        .iter()
        .enumerate()
        .map(|(n, texts)| {
            let prepared =
                embedder.jobs().texts(texts, embedder.encode_options()).expect("good texts");
            let (input, finish) = prepared.split();
            let sender = sender.clone();
            scheduler.submit(input, move |done| {
                let rows = done.expect("rows").rows;
                sender.send((n, finish(rows))).expect("somebody listens");
            })
        })
        .collect();
    for _ in &texts {
        let (n, embedded) = receiver.recv().expect("an answer for each");
        let alone = embedder.embed_counted(&texts[n]).expect("good texts");
        assert_eq!(embedded, alone, "call {n}");
    }
    drop(guards);
    assert_eq!(scheduler.calls(), 0);
}

#[test]
fn a_dropped_guard_cancels_and_the_end_waits_for_the_others() {
    let embedder = embedder();
    let scheduler = Scheduler::new(embedder.clone(), |_| ()).expect("a thread");
    let (sender, receiver) = std::sync::mpsc::channel();
    let submit = |n: usize| {
        let sender = sender.clone();
        scheduler.submit(work(&embedder, &[64; 40]), move |done| {
            sender.send((n, done.expect("rows").rows.len())).expect("somebody listens");
        })
    };
    let kept = submit(0);
    drop(submit(1));
    let last = submit(2);
    drop(scheduler);
    drop((kept, last, sender));
    let mut answered: Vec<_> = receiver.iter().collect();
    answered.sort_unstable();
    assert_eq!(answered, [(0, 40), (2, 40)]);
}

#[test]
fn throughput_is_that_of_the_last_batches() {
    let mut throughput = Throughput::default();
    assert_eq!(throughput.time(1000), Duration::ZERO);
    throughput.add(100, Duration::from_secs(2));
    assert_eq!(throughput.time(50), Duration::from_secs(1));
    (0..100).for_each(|_| throughput.add(100, Duration::from_secs(1)));
    assert!((throughput.time(50).as_secs_f64() - 0.5).abs() < 1e-3, "{throughput:?}");
}

#[test]
fn a_backlog_is_what_has_no_rows_yet() {
    let embedder = embedder();
    let mut queue = queue(&embedder, &[(&[60, 30], false), (&[10], true)]);
    assert_eq!(queue.backlog(), Duration::ZERO);
    queue.throughput.add(100, Duration::from_secs(10));
    for left in [100, 90, 30, 0] {
        let expected = Duration::from_secs_f64(f64::from(left) / 10.0);
        assert!(queue.backlog().abs_diff(expected) < Duration::from_millis(1), "{left} tokens");
        let batch = queue.pick(64);
        let rows = vec![Vec::new(); batch.len()];
        assert_eq!(batch.is_empty(), left == 0);
        // EncoderInput in flight has no rows either.
        assert!(queue.backlog().abs_diff(expected) < Duration::from_millis(1), "{left} tokens");
        queue.keep(&batch, rows);
    }
}

#[test]
fn nothing_asked_is_answered_at_once() {
    let embedder = embedder();
    let scheduler = Scheduler::new(embedder.clone(), |_| ()).expect("a thread");
    let (sender, receiver) = std::sync::mpsc::channel();
    let none: [&str; 0] = [];
    let input = embedder.jobs().texts(&none, embedder.encode_options()).expect("no texts").input;
    let _guard = scheduler.submit(input, move |done| sender.send(done).expect("a listener"));
    assert!(receiver.recv().expect("an answer").expect("no rows").rows.is_empty());
}

#[test]
fn failures_in_a_row_are_counted_for_a_while() {
    let mut failures = Failures::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(failures.at(start), 0);
    [0, 120, 240].into_iter().for_each(|seconds| failures.add(at(seconds)));
    assert_eq!((failures.at(at(241)), failures.at(at(539)), failures.at(at(541))), (3, 3, 0));
    failures.add(at(900)); // no success in between
    assert_eq!(failures.at(at(901)), 4);
}

#[test]
fn beside_short_calls_long_ones_have_half_batches() {
    let embedder = embedder();
    let mut queue = queue(&embedder, &[(&[10; 15], false)]);
    assert_eq!(queue.pick(64).len(), 6);
    queue.short_at = Some(Instant::now());
    assert_eq!(queue.pick(64).len(), 3);
    queue.short_at = Instant::now().checked_sub(LATELY);
    assert_eq!(queue.pick(64).len(), 6);
}
