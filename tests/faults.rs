//! Errors and recovery when a device fails, on every Vulkan driver of this machine: failures are
//! injected (feature `faults`), and real where possible.  `docs/failures.md` lists them in a table.

#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use common::fixture;
use jinabert::{
    Device, Embedder, Error, Options, Queue, Task, Vector, Workload,
    gpu::{self, Gpu, wgpu},
    recording::{Fault, Faults},
};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Runs a test for every adapter of the native APIs, with options and a handle to inject faults.
fn each(test: impl Fn(Options, Faults)) {
    let adapters = gpu::native_adapters();
    if std::env::var("JINABERT_REQUIRE").is_ok() {
        assert!(adapters.len() > 1, "two drivers at least, but {adapters:?}");
    }
    for (index, adapter) in adapters.iter().enumerate() {
        eprintln!("{adapter}");
        let faults = Faults::default();
        let device = Device::Index(index);
        test(Options { device, faults: faults.clone(), ..Options::default() }, faults);
    }
}

fn open(options: &Options) -> Embedder {
    Embedder::open_with(fixture("tiny-natural"), options.clone()).expect("a good fixture")
}

fn texts(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("a {} is a {}", "cat ".repeat(n % 7), n)).collect()
}

/// Vectors computed on the CPU.
fn expected(texts: &[String]) -> Vec<Vector> {
    let options = Options { device: Device::Cpu, ..Options::default() };
    open(&options).embed(texts).expect("short texts")
}

#[track_caller]
fn assert_same(found: &[Vector], expected: &[Vector]) {
    assert_eq!(found.len(), expected.len());
    for (n, (found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = found.iter().zip(expected.iter()).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0, f32::max);
        assert!(apart < 1e-5, "text {n} is {apart} apart");
    }
}

#[test]
fn a_lost_device_is_reopened() {
    let texts = texts(200);
    let small = 100;
    let expected = expected(&texts);
    each(|options, faults| {
        let embedder = open(&Options { batch_tokens: Some(small), ..options });
        let first = embedder.device();
        for run in [2, 9, 14] {
            faults.order(run, Fault::Lost);
        }
        assert_same(&embedder.embed(&texts).expect("re-opened"), &expected);
        assert_eq!(faults.happened(), [Fault::Lost; 3]);
        assert_eq!(embedder.device(), first);
        assert_same(&embedder.embed(&texts).expect("no failure"), &expected);
    });
}

#[test]
fn device_loss_under_many_threads_answers_every_call_once() {
    let texts = texts(60);
    let expected = expected(&texts);
    each(|options, faults| {
        let queue = Queue::new(open(&Options { batch_tokens: Some(64), ..options })).expect("room");
        faults.order(2, Fault::Lost);
        faults.order(6, Fault::Lost);
        let answers = AtomicUsize::new(0);
        thread::scope(|scope| {
            for worker in 0..6 {
                let queue = &queue;
                let texts = &texts;
                let expected = &expected;
                let answers = &answers;
                scope.spawn(move || {
                    for n in (worker..texts.len()).step_by(6) {
                        let vectors = queue.embed(&texts[n..=n]).expect("short");
                        assert_same(&vectors.wait().expect("re-opened"), &expected[n..=n]);
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(answers.into_inner(), texts.len());
        assert_eq!(faults.happened(), [Fault::Lost; 2]);
    });
}

#[test]
fn a_device_lost_again_is_an_error_and_the_next_call_is_served() {
    let texts = texts(3);
    let expected = expected(&texts);
    each(|options, faults| {
        let embedder = open(&options);
        faults.order(0, Fault::Lost);
        faults.order(1, Fault::Lost);
        let error = embedder.embed(&texts).expect_err("lost twice");
        assert!(matches!(error, Error::Gpu(_)), "{error:?}");
        assert!(error.to_string().contains("lost"), "{error}");
        assert_same(&embedder.embed(&texts).expect("re-opened"), &expected);
    });
}

#[test]
fn kernels_that_the_compiler_refuses_are_replaced_by_plainer_ones() {
    let texts = texts(5);
    let expected = expected(&texts);
    each(|options, faults| {
        let embedder = open(&options);
        let device = embedder.device();
        // Files of the software drivers' default tier, the texture tier, and the tiled one.
        faults.refuse("texture/attention.wgsl");
        faults.refuse("linear.wgsl");
        assert_same(&embedder.embed(&texts).expect("the naive kernels"), &expected);
        assert_eq!(embedder.device(), device, "on the same device");
        assert_same(&embedder.embed(&texts).expect("what helped stays"), &expected);

        let embedder = open(&options);
        faults.refuse("naive/linear.wgsl");
        let error = embedder.embed(&texts).expect_err("nothing is left");
        assert!(matches!(error, Error::Compile { kernel: "linear", .. }), "{error:?}");
        let embedder = open(&Options { fallback: Some(true), ..options });
        assert_same(&embedder.embed(&texts).expect("the CPU"), &expected);
        assert!(embedder.device().contains("refuses kernel"), "{}", embedder.device());
    });
}

#[test]
fn auto_takes_the_faster_of_gpu_and_cpu() {
    let faults = Faults::default();
    let options = Options { device: Device::Auto, faults: faults.clone(), ..Options::default() };
    let plain = open(&options).device();
    assert!(!plain.contains("measurement"), "software adapters are no candidates: {plain}");
    faults.pose();
    if gpu::native_adapters().is_empty() {
        return; // no Vulkan adapter
    }
    // A software driver that reports an integrated GPU is slower than the CPU path.
    for workload in [Workload::Mixed, Workload::Latency, Workload::Throughput] {
        let embedder = open(&Options { workload, ..options.clone() });
        let device = embedder.device();
        assert!(device.starts_with("cpu") && device.contains("chosen by measurement"), "{device}");
        assert!(device.contains("tokens/s"), "{device}");
        assert_eq!(embedder.runtime().kind(), "cpu");
    }
    let named = open(&Options { device: Device::Index(0), ..options.clone() });
    assert!(!named.device().contains("measurement"), "{}", named.device());
    let tokens = named.runtime().batch_tokens();
    assert!(tokens < 16_384, "its batches take a moment: {tokens}");
    // If the GPU cannot be opened, the CPU is used, and the reason is reported.
    faults.close(true);
    let device = open(&options).device();
    assert!(device.starts_with("cpu") && device.contains("failed"), "{device}");
}

#[test]
fn with_fallback_the_cpu_replaces_a_lost_device() {
    let texts = texts(30);
    let expected = expected(&texts);
    each(|options, faults| {
        let embedder = open(&Options { fallback: Some(true), ..options });
        assert_eq!(embedder.runtime().kind(), "gpu");
        faults.order(0, Fault::Lost);
        faults.close(true);
        assert_same(&embedder.embed(&texts).expect("the CPU"), &expected);
        assert_eq!(embedder.runtime().kind(), "cpu");
        let device = embedder.device();
        assert!(device.starts_with("cpu") && device.contains("took over after"), "{device}");
        // From now on, failures are handled by the CPU's own retries.
        faults.order(0, Fault::NotFinite);
        assert_same(&embedder.embed(&texts).expect("the reference"), &expected);
        assert_eq!(embedder.device(), device);
    });
}

#[test]
fn without_fallback_a_device_that_cannot_be_reopened_is_an_error() {
    let texts = texts(3);
    each(|options, faults| {
        let embedder = open(&options);
        faults.order(0, Fault::Lost);
        faults.close(true);
        for _ in 0..5 {
            let error = embedder.embed(&texts).expect_err("closed");
            assert!(matches!(error, Error::Gpu(_)), "{error:?}");
        }
        // At most three attempts in a minute: opening takes longer than returning an error.
        faults.close(false);
        assert!(embedder.embed(&texts).is_err());
    });
}

#[test]
fn a_hanging_device_is_abandoned_after_its_timeout() {
    let texts = texts(5);
    let expected = expected(&texts);
    each(|options, faults| {
        let embedder = open(&options);
        embedder.embed(&texts).expect("no failure"); // compiles the kernels
        drop(embedder);
        let device_timeout = Duration::from_secs(6);
        let hang = Duration::from_secs(20);
        let embedder = open(&Options { device_timeout, ..options });
        faults.order(0, Fault::Hang(hang));
        let start = Instant::now();
        assert_same(&embedder.embed(&texts).expect("re-opened"), &expected);
        let took = start.elapsed();
        assert!(took > device_timeout, "nothing hung: {took:?} {}", embedder.device());
        if cfg!(target_os = "linux") {
            assert!(thread_called("jinabert-closin"), "nothing is left to itself");
        }
        // SwiftShader's threads crash if the process ends before them.
        let start = Instant::now();
        while thread_called("jinabert-closin") {
            assert!(start.elapsed() < Duration::from_secs(180), "it does not end");
            thread::sleep(Duration::from_millis(100));
        }
    });
}

/// True if this process has a thread with that name, of which Linux keeps 15 characters.
fn thread_called(name: &str) -> bool {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.into_iter().any(|found| found.trim_end() == name)
}

#[test]
fn skipped_work_is_detected_and_repeated() {
    let texts = texts(30);
    let expected = expected(&texts);
    each(|options, faults| {
        let embedder = open(&Options { batch_tokens: Some(64), ..options });
        embedder.embed(&texts).expect("no failure");
        faults.order(1, Fault::Stale);
        assert_same(&embedder.embed(&texts).expect("done again"), &expected);
        assert_eq!(faults.happened(), [Fault::Stale]);
    });
}

#[test]
fn non_finite_results_are_recomputed_by_plainer_kernels() {
    let texts = texts(30);
    let expected = expected(&texts);
    each(|options, faults| {
        let embedder = open(&Options { batch_tokens: Some(64), ..options.clone() });
        faults.order(1, Fault::NotFinite);
        assert_same(&embedder.embed(&texts).expect("a lower tier"), &expected);

        // No lower tier is left: the call fails, and the embedder is unchanged.
        let embedder = open(&options);
        let again: Vec<_> = (0..2).collect();
        again.iter().for_each(|&n| faults.order(n, Fault::NotFinite));
        let error = embedder.embed(&texts).expect_err("twice");
        assert!(matches!(error, Error::NotFinite(_)), "{error:?}");
        assert_same(&embedder.embed(&texts).expect("no failure"), &expected);

        // Fallback to the CPU's simpler kernels.
        let embedder = open(&Options { device: Device::Cpu, ..options.clone() });
        faults.order(0, Fault::NotFinite);
        assert_same(&embedder.embed(&texts).expect("the reference"), &expected);
    });
}

#[test]
fn out_of_memory_halves_the_batches() {
    let texts = texts(64);
    let expected = expected(&texts);
    each(|options, faults| {
        let embedder = open(&options);
        embedder.embed(&texts[..1]).expect("no failure");
        faults.limit_memory(Some(embedder.runtime().allocated_bytes() + 100_000));
        let before = embedder.runtime().batch_tokens();
        assert_same(&embedder.embed(&texts).expect("halved"), &expected);
        assert!(faults.refused() > 0 && embedder.runtime().batch_tokens() < before);
        // From now on batches are smaller, and fit.
        let refused = faults.refused();
        assert_same(&embedder.embed(&texts).expect("small enough"), &expected);
        assert_eq!(faults.refused(), refused);

        let long = ["a cat ".repeat(150)];
        let error = embedder.embed(&long).expect_err("no room for one text");
        assert!(matches!(error, Error::Memory(_)), "{error:?}");
        assert_same(&embedder.embed(&texts).expect("as before"), &expected);
        faults.limit_memory(None);
        embedder.embed(&long).expect("room again");
    });
}

#[test]
fn with_fallback_a_model_too_large_for_the_device_goes_to_the_cpu() {
    let texts = texts(8);
    let expected = expected(&texts);
    each(|options, faults| {
        faults.limit_memory(Some(50_000));
        let opened = Embedder::open_with(fixture("tiny-natural"), options.clone());
        let error = opened.map(|_| ()).expect_err("no room");
        assert!(matches!(error, Error::Memory(_)), "{error:?}");
        let embedder = open(&Options { fallback: Some(true), ..options });
        assert_eq!(embedder.runtime().kind(), "cpu");
        assert_same(&embedder.embed(&texts).expect("the CPU"), &expected);
    });
}

#[test]
fn fill_mask_recovers_from_a_lost_device() {
    each(|options, faults| {
        let options = Options { task: Task::FillMask, ..options };
        let masked = "a [MASK] is a cat";
        let fill = |embedder: &Embedder| embedder.fill_mask(masked, 3).expect("a mask");
        let model = fixture("tiny-mlm");
        let embedder = Embedder::open_with(&model, options.clone()).expect("a fixture");
        let expected = fill(&embedder);
        faults.order(0, Fault::Lost);
        let found = fill(&embedder);
        assert_eq!(faults.happened(), [Fault::Lost]);
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    });
}

#[test]
fn an_application_shares_its_device_and_keeps_its_callbacks() {
    let texts = texts(40);
    let expected = expected(&texts);
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    for adapter in adapters {
        let request = adapter.request_device(&wgpu::DeviceDescriptor::default());
        let (device, queue) = pollster::block_on(request).expect("a device");
        let lost = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&lost);
        device.set_device_lost_callback(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let gpu = Gpu::shared(&adapter, &device, &queue).expect("WebGPU's defaults");
        let options = Options { gpu: Some(gpu), ..Options::default() };
        let embedder = open(&options);
        assert_eq!(embedder.runtime().kind(), "gpu");
        assert_same(&embedder.embed(&texts).expect("no failure"), &expected);
        // A second model on the device, and the application's own work in between.
        let other = open(&Options { fallback: Some(true), ..options });
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 64,
            usage: wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        queue.write_buffer(&buffer, 0, &[1; 64]);
        queue.submit([]);
        assert_same(&other.embed(&texts).expect("no failure"), &expected);

        device.destroy();
        let error = embedder.embed(&texts).expect_err("the application's device is gone");
        assert!(matches!(error, Error::Gpu(_)), "{error:?}");
        assert_same(&other.embed(&texts).expect("the CPU"), &expected);
        assert_eq!(other.runtime().kind(), "cpu");
        let _ = device.poll(wgpu::PollType::Poll);
        assert_eq!(lost.load(Ordering::Relaxed), 1, "its callback is its own");
    }
}

#[test]
fn a_shared_device_below_the_default_limits_is_refused() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    for adapter in pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN)) {
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            required_limits: wgpu::Limits::downlevel_webgl2_defaults(),
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request).expect("a device");
        match Gpu::shared(&adapter, &device, &queue) {
            Err(Error::NoGpu { needs }) => assert!(needs.contains("needed"), "{needs}"),
            other => panic!("{other:?}"),
        }
    }
}
