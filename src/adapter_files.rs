//! Files of LoRA adapters in the layout of jina-embeddings-v3-hf: a folder for each task, with a
//! configuration and weights as PEFT writes them.

/// Tasks of jina-embeddings-v3, for a config.json that does not list its own.
pub(crate) const TASKS: [&str; 5] =
    ["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"];

/// Configuration in a task's folder.
pub(crate) const CONFIG: &str = "adapter_config.json";

/// Factors in a task's folder.
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";

/// Folder of a task's adapter.
pub(crate) fn folder(task: &str) -> String {
    task.replace(['.', '-'], "_")
}
