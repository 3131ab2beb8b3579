//! Calls from many threads and tasks: the same vectors as alone, cancelled when dropped; and models
//! in an application's memory.

#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use common::fixture;
use jinabert::{
    Device, Embedder, EncodeOptions, Error, Files, OnLong, Options, Pooling, Prompt, Queue, Task,
    text::Chunking,
};
use rayon::prelude::*;
use std::{
    fs,
    ops::ControlFlow,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

fn options() -> Options {
    Options { device: Device::Cpu, ..Options::default() }
}

fn queue() -> Queue {
    let embedder = Embedder::open_with(fixture("tiny-natural"), options()).expect("a fixture");
    Queue::new(embedder).expect("a thread")
}

/// Runs a future on this thread.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn concurrent_calls_equal_a_single_call() {
    let queue = queue();
    let texts: Vec<String> = (0..48).map(|n| format!("a {} {n}", "cat ".repeat(n % 5))).collect();
    // Called on the embedder itself, without the queue.
    let alone = queue.embedder().embed(&texts).expect("short texts");
    thread::scope(|scope| {
        for worker in 0..8 {
            let queue = queue.clone();
            let texts = &texts;
            let alone = &alone;
            scope.spawn(move || {
                for n in (worker..texts.len()).step_by(8) {
                    let pending = queue.embed(&texts[n..=n]).expect("a short text");
                    let vectors = match n % 2 {
                        0 => pending.wait(),
                        _ => block_on(pending),
                    };
                    assert_eq!(vectors.expect("a healthy device"), alone[n..=n], "text {n}");
                }
            });
        }
    });
}

#[test]
fn a_dropped_call_is_cancelled_and_others_go_on() {
    let small = Options { batch_tokens: Some(64), ..options() };
    let embedder = Embedder::open_with(fixture("tiny-natural"), small).expect("a fixture");
    let queue = Queue::new(embedder).expect("a thread");
    let long: Vec<String> = (0..3000).map(|n| "a cat ".repeat(20 + n % 9)).collect();
    let dropped = queue.embed(&long).expect("short enough");
    let calls = |n: usize| format!("{queue:?}").starts_with(&format!("Queue({n} calls"));
    assert!(calls(1), "{queue:?}: thousands of batches are still to come");
    drop(dropped);
    assert!(calls(0), "{queue:?}");
    let short = queue.embed(&["a cat"]).expect("short").wait();
    assert_eq!(short.expect("a healthy device").len(), 1);
}

#[test]
fn calls_on_all_rayon_threads_do_not_deadlock() {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        let queue = queue();
        let texts: Vec<String> = (0..64).map(|n| "a cat ".repeat(20 + n % 9)).collect();
        let alone: Vec<_> = texts
            .par_iter()
            .with_max_len(1)
            .map(|text| queue.embedder().embed(&[text]).expect("a short text"))
            .collect();
        let queued: Vec<_> = texts
            .par_iter()
            .with_max_len(1)
            .map(|text| queue.embed(&[text]).expect("short").wait().expect("a healthy device"))
            .collect();
        sender.send(alone == queued).expect("waited for");
    });
    let same = done.recv_timeout(Duration::from_secs(120));
    assert_eq!(same, Ok(true), "a timeout is a deadlock");
}

#[test]
fn long_calls_on_all_rayon_threads_do_not_deadlock() {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        let embedder = Embedder::open_with(fixture("tiny-natural"), options()).expect("a fixture");
        // More texts than are tokenised at once, on more threads than there are.
        let texts: Vec<String> = (0..5000).map(|n| format!("a cat {}", n % 10)).collect();
        let few = embedder.embed(&texts[..10]).expect("short texts");
        let calls = (0..2 * rayon::current_num_threads()).into_par_iter().with_max_len(1);
        let all = calls.map(|_| embedder.embed(&texts).expect("short texts"));
        let same = all.all(|all| (0..texts.len()).all(|n| all[n] == few[n % 10]));
        sender.send(same).expect("waited for");
    });
    let same = done.recv_timeout(Duration::from_secs(120));
    assert_eq!(same, Ok(true), "a timeout is a deadlock");
}

#[test]
#[should_panic(expected = "has returned its result")]
fn waiting_twice_for_a_result_panics() {
    let mut pending = queue().embed(&["a cat"]).expect("short");
    assert_eq!(block_on(&mut pending).expect("a healthy device").len(), 1);
    drop(pending.wait());
}

#[test]
fn dimensions_that_the_model_does_not_have_are_refused() {
    let queue = queue();
    let hidden = queue.embedder().config().hidden as usize;
    let by: Chunking = "tokens:2".parse().expect("a rule");
    for dimensions in [0, hidden + 1, usize::MAX] {
        let wanted = EncodeOptions { dimensions, ..queue.embedder().encode_options() };
        let refused = [
            queue.embedder().jobs().texts(&["a cat"], wanted).map(drop),
            queue.embedder().jobs().chunks(&["a cat"], &[&by], &Prompt::Auto, wanted).map(drop),
            queue
                .embedder()
                .embed_watched(&["a cat"], wanted, |_| ControlFlow::Continue(()))
                .map(drop),
        ];
        for result in refused {
            let error = result.expect_err("too many, or none");
            assert!(matches!(error, Error::Option(_)), "{error:?}");
            assert!(error.to_string().contains(&dimensions.to_string()), "{error}");
        }
    }
}

#[test]
fn a_call_may_have_a_lower_limit() {
    let long = "a cat ".repeat(20);
    for on_long in [OnLong::Truncate, OnLong::Window, OnLong::Error] {
        let open = |max_length| {
            let options = Options { on_long, max_length, overlap: 4, ..options() };
            Embedder::open_with(fixture("tiny-natural"), options).expect("a fixture")
        };
        let lower = open(Some(16));
        let embedder = open(None);
        let wanted = EncodeOptions { max_length: 16, ..embedder.encode_options() };
        let called =
            embedder.jobs().texts(&[&long], wanted).and_then(|call| embedder.compute(call));
        let by: Chunking = "tokens:9".parse().expect("a rule");
        let chunks = embedder.jobs().chunks(&[&long], &[&by], &Prompt::Auto, wanted);
        let chunks = chunks.and_then(|call| embedder.compute(call));
        if on_long == OnLong::Error {
            for error in [called.map(drop), chunks.map(drop)] {
                let error = error.expect_err("over the limit of the call");
                assert!(matches!(error, Error::TooLong { limit: 16, .. }), "{error:?}");
            }
            continue;
        }
        let called = called.expect("short enough");
        assert_eq!(called, lower.embed_counted(&[&long]).expect("short enough"), "{on_long}");
        let by_options = lower.embed_chunks(&[&long], &by).expect("short enough");
        assert_eq!(chunks.expect("short enough"), by_options, "{on_long}");
        for max_length in [0, 2, embedder.max_length() + 1] {
            let wanted = EncodeOptions { max_length, ..embedder.encode_options() };
            let error = embedder.jobs().texts(&["a"], wanted).expect_err("no such limit");
            let says = format!("max length {max_length}: expected 3 to {}", embedder.max_length());
            assert_eq!(error.to_string(), says);
        }
    }
}

#[test]
fn waiting_again_after_a_timeout_gives_the_result() {
    let queue = queue();
    let texts: Vec<String> = (0..2000).map(|n| "a cat ".repeat(9 + n % 7)).collect();
    let pending = queue.embed(&texts).expect("short enough");
    let pending = pending.wait_for(Duration::ZERO).expect_err("nothing is that fast");
    drop(queue); // accepted calls are completed
    assert_eq!(pending.wait().expect("a healthy device").len(), texts.len());
}

#[test]
fn many_texts_are_tokenised_on_another_thread() {
    let limited = Options { max_length: Some(40), ..options() };
    let embedder = Embedder::open_with(fixture("tiny-natural"), limited).expect("a fixture");
    let queue = Queue::new(embedder).expect("a thread");
    let mut texts: Vec<String> = (0..6000).map(|n| format!("a cat {}", n % 10)).collect();
    let few = queue.embed(&texts[..10]).expect("short texts").wait().expect("a healthy device");
    let some = &texts[..1200];
    let all = block_on(queue.embed(some).expect("queued")).expect("short texts");
    assert!(all.len() == some.len() && (0..some.len()).all(|n| all[n] == few[n % 10]));
    // `embed` returns before the tokens are counted: a text over the limit is reported later.
    texts[5000] = "a ".repeat(50);
    let pending = queue.embed(&texts).expect("no text is read here");
    let error = block_on(pending).expect_err("a text is too long");
    assert!(matches!(error, Error::TooLong { index: 5000, limit: 40, .. }), "{error:?}");
    let error = queue.embed(&texts).expect("queued").wait().expect_err("a text is too long");
    assert!(matches!(error, Error::TooLong { index: 5000, limit: 40, .. }), "{error:?}");
    // Errors that do not depend on the texts are reported immediately.
    let reranker = Options { task: Task::Rerank, ..options() };
    let reranker = Embedder::open_with(fixture("tiny-reranker-bpe"), reranker).expect("a fixture");
    let error = Queue::new(reranker).expect("a thread").embed(&texts).map(drop);
    assert!(matches!(error, Err(Error::Option(_))), "{error:?}");
}

#[test]
fn calls_being_tokenised_are_cancelled_or_completed() {
    let queue = queue();
    let texts: Vec<String> = (0..20_000).map(|n| format!("a cat {}", n % 10)).collect();
    let calls = |n: usize| format!("{queue:?}").starts_with(&format!("Queue({n} calls"));
    let pending = queue.embed(&texts).expect("queued");
    assert!(calls(1), "{queue:?}");
    drop(pending);
    assert!(calls(0), "{queue:?}");
    let pending = queue.embed(&texts[..1200]).expect("queued");
    drop(queue); // accepted calls are completed
    let ready = pending.wait_for(Duration::ZERO).expect("waited for when the queue was dropped");
    assert_eq!(ready.expect("a healthy device").len(), 1200);
}

#[test]
fn waiting_on_all_rayon_threads_does_not_deadlock() {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        let queue = queue();
        let texts: Vec<String> = (0..1200).map(|n| format!("a cat {}", n % 10)).collect();
        let embed = |_| queue.embed(&texts).expect("queued");
        let calls: Vec<_> = (0..2 * rayon::current_num_threads()).map(embed).collect();
        let all = calls.into_par_iter().with_max_len(1);
        let all = all.all(|call| call.wait().expect("a healthy device").len() == texts.len());
        sender.send(all).expect("waited for");
    });
    let all = done.recv_timeout(Duration::from_secs(120));
    assert_eq!(all, Ok(true), "a timeout is a deadlock");
}

#[test]
fn embedders_jobs_and_submissions_have_debug_output() {
    let queue = queue();
    let printed = format!("{:?}", queue.embedder());
    for part in ["Embedder", "tiny-natural", "Embed", "cpu", "dimensions", "max_length"] {
        assert!(printed.contains(part), "`{part}` is not in {printed}");
    }
    let prepared = queue
        .embedder()
        .jobs()
        .texts(&["a cat"], queue.embedder().encode_options())
        .expect("short");
    assert!(format!("{prepared:?}").starts_with("EncodeJob"), "{prepared:?}");
    let forwards: Vec<_> = prepared.input.sequences().iter().collect();
    let runtime = queue.embedder().runtime();
    let submitted = runtime.submit(&forwards, prepared.input.output()).expect("a device");
    assert_eq!(format!("{submitted:?}"), "InFlight");
}

#[test]
fn a_few_texts_over_the_limit_are_refused_immediately() {
    let embedder =
        Embedder::open_with(fixture("tiny-natural"), Options { max_length: Some(20), ..options() });
    let queue = Queue::new(embedder.expect("a fixture")).expect("a thread");
    let error = queue.embed(&["a", &"a ".repeat(50)]).map(|_| ()).expect_err("too long");
    assert!(matches!(error, Error::TooLong { index: 1, limit: 20, .. }), "{error:?}");
    assert!(queue.embed::<&str>(&[]).expect("no texts").wait().expect("nothing to do").is_empty());
}

/// Files of a fixture, in memory.
fn in_memory(name: &str) -> Files {
    let files = fs::read_dir(fixture(name)).expect("a directory").filter_map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        path.is_file().then(|| (name, fs::read(path).expect("a file")))
    });
    files.fold(Files::memory(), |files, (name, bytes)| files.with(name, bytes))
}

#[test]
fn auto_pooling_follows_the_declaration() {
    let open = |modules: &str, mode: &str, pooling: Pooling| {
        let config = format!("{{\"pooling_mode_{mode}\": true}}");
        let files = in_memory("tiny-natural").with("modules.json", modules.as_bytes().to_vec());
        let files = files.with("1_Pooling/config.json", config.into_bytes());
        Embedder::open_with(files, Options { pooling, ..options() })
    };
    let vector = |opened: Result<Embedder, Error>| {
        let vectors = opened.expect("a fixture").embed(&["the cat is a cat"]).expect("short");
        vectors.into_iter().next().expect("one")
    };
    let usual = "[{\"type\": \"a.Transformer\", \"path\": \"\"},
        {\"type\": \"a.Pooling\", \"path\": \"1_Pooling\"}]";
    let dense = usual.replace(']', ", {\"type\": \"a.CNN\", \"path\": \"2_CNN\"}]");
    let [mean, cls] = [Pooling::Mean, Pooling::Cls].map(|pooling| {
        let options = Options { pooling, ..options() };
        vector(Embedder::open_with(fixture("tiny-natural"), options))
    });
    assert_ne!(mean, cls);
    assert_eq!(vector(open(usual, "mean_tokens", Pooling::Auto)), mean);
    assert_eq!(vector(open(usual, "cls_token", Pooling::Auto)), cls);
    assert_eq!(vector(open(usual, "cls_token", Pooling::Mean)), mean);
    assert_eq!(open(usual, "cls_token", Pooling::Auto).expect("cls").pooling(), Pooling::Cls);
    for (modules, mode, says) in
        [(usual, "median_tokens", "pooling `median`"), (&dense, "mean_tokens", "a module `a.CNN`")]
    {
        let error = open(modules, mode, Pooling::Auto).map(drop).expect_err("not computed here");
        assert!(matches!(error, Error::Model(_)) && error.to_string().contains(says), "{error}");
    }
}

#[test]
fn rerankers_refuse_to_embed() {
    let options = Options { task: Task::Rerank, ..options() };
    let reranker = Embedder::open_with(fixture("tiny-reranker-bpe"), options).expect("a fixture");
    let error = reranker.embed(&["a cat"]).expect_err("of a reranker");
    assert!(matches!(error, Error::Option(_)), "{error:?}");
    assert_eq!(reranker.rerank("a cat", &["a dog", "a cat"]).expect("scores").len(), 2);
}

#[test]
fn a_model_in_memory_equals_the_model_on_disk() {
    let texts = ["a cat", "the cat is a cat"];
    for name in ["tiny-natural", "tiny-sharded"] {
        let dir = fixture(name);
        let disk = Embedder::open_with(&dir, options()).expect("a fixture");
        let memory = Embedder::open_with(in_memory(name), options()).expect("the same files");
        if disk.tokenization().reads_texts() {
            let [disk, memory] = [disk, memory].map(|e| e.embed(&texts).expect("short"));
            assert_eq!(disk, memory);
        } else {
            let tokens = jinabert::batch::Tokens::new(vec![1, 2, 3]);
            let [disk, memory] =
                [disk, memory].map(|e| e.tokens().embed(&[&tokens]).expect("known ids"));
            assert_eq!(disk, memory);
        }
    }
    let error = Embedder::open(Files::memory()).map(|_| ()).expect_err("no files");
    assert_eq!(error.to_string(), "cannot read `config.json`: not among the files given");
}
