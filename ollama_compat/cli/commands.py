"""The commands and flags of the program, word for word Ollama's."""

from __future__ import annotations

from ollama_compat.cli.command import MANY, Command
from ollama_compat.cli.flags import HELP, Flag

ABOUT = "Large language model runner"
JSON = Flag("json", "Print JSON", ours=True)
INSECURE = Flag("insecure", "Use an insecure registry")
VERBOSE = Flag("verbose", "Show timings for response")
NO_WRAP = Flag("nowordwrap", "Don't wrap words to the next line automatically")
VERSION_FLAG = Flag("version", "Show version information", short="v")

CREATE_FLAGS = (
    Flag("draft-quantize", "Quantize draft model to this level", "string"),
    Flag("experimental", "Enable experimental safetensors model creation"),
    Flag("file", 'Name of the Modelfile (default "Modelfile")', "string", "f"),
    Flag("imatrix", "Importance matrix to quantize by (a file of llama-imatrix)", "string", ours=True),
    Flag("quantize", "Quantize model to this level (e.g. q4_K_M)", "string", "q"),
    JSON,
)
SHOW_FLAGS = (
    Flag("license", "Show license of a model"),
    Flag("modelfile", "Show Modelfile of a model"),
    Flag("parameters", "Show parameters of a model"),
    Flag("system", "Show system message of a model"),
    Flag("template", "Show template of a model"),
    Flag("verbose", "Show detailed model information", short="v"),
    JSON,
)
TRUNCATE = "For embedding models: truncate inputs exceeding context length (default: true). Set --truncate=false to error instead"
RUN_FLAGS = (
    Flag("dimensions", "Truncate output embeddings to specified dimension (embedding models only)", "int"),
    Flag("format", "Response format (e.g. json)", "string"),
    Flag("hidethinking", "Hide thinking output (if provided)"),
    INSECURE,
    Flag("keepalive", "Duration to keep a model loaded (e.g. 5m)", "string"),
    NO_WRAP,
    Flag("think", "Enable thinking mode: true/false or high/medium/low for supported models", "string", bare="true"),
    Flag("truncate", TRUNCATE),
    VERBOSE,
    JSON,
)
BENCH_FLAGS = (
    Flag("n-prompt", "Lengths of the prompts, with commas between them (default 512)", "string", "p"),
    Flag("n-gen", "Lengths of the answers (default 128)", "string", "n"),
    Flag("n-depth", "Tokens before the answers (default 0)", "string", "d"),
    Flag("n-gpu-layers", "Layers on the card, 0 for none (default: what the server would do)", "string"),
    Flag("n-cpu-moe", "Layers, from the first, whose experts stay in RAM (default 0)", "string"),
    Flag("parallel", "Answers at the same time (default 1,4)", "string"),
    Flag("threads", "Threads; 0 is what the server would take (default 0)", "string", "t"),
    Flag("repetitions", "Times that each test is repeated (default 5)", "string", "r"),
    JSON,
)
AB_FLAGS = (
    Flag("against", "Address of a running Ollama", "string"),
    Flag("against-model", "Name of the model there (default: the same)", "string"),
    Flag("against-openai", "Address of a running server with OpenAI's API", "string"),
    Flag("full", "Measure everything, however long it takes"),
    Flag("html", "Write the report to this file, a page that opens offline", "string"),
    JSON,
    Flag("minutes", "Plan the run to take about so long (default 9)", "int"),
    Flag("ollama", "Path of the ollama program to start (default: from PATH)", "string"),
    Flag("rounds", "Rounds to measure (default: as many as the time allows)", "int"),
    Flag("together", "Keep the model in the memory of both servers"),
)
DOCTOR_FLAGS = (Flag("all", "Tell of well-known models as well"), JSON)
SERVE_VARIABLES = (
    "OLLAMA_DEBUG",
    "OLLAMA_HOST",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_MAX_QUEUE",
    "OLLAMA_MODELS",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_NO_CLOUD",
    "OLLAMA_NOPRUNE",
    "OLLAMA_ORIGINS",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_GPU_OVERHEAD",
    "OLLAMA_LOAD_TIMEOUT",
    "MOELLAMA_API_KEYS",
    "MOELLAMA_API_KEY_FILE",
    "MOELLAMA_LOG_FORMAT",
    "MOELLAMA_ISA",
    "MOELLAMA_PCIE",
    "MOELLAMA_VRAM",
    "LLAMA_ARG_CPU_MOE",
    "LLAMA_ARG_N_CPU_MOE",
)
VARIABLES = {
    "MOELLAMA_API_KEYS": "A comma separated list of keys, one of which every request has to show",
    "MOELLAMA_API_KEY_FILE": "A file of such keys, one a line",
    "MOELLAMA_ISA": "CPU kernels' instruction set: portable, avx2, avxvnni, avx512, avx512vbmi, avx512bf16, amx (default: best)",
    "MOELLAMA_LOG_FORMAT": 'Form of the log: "text" or "json"',
    "LLAMA_ARG_CPU_MOE": "Keep all experts in RAM",
    "LLAMA_ARG_N_CPU_MOE": "Keep the experts of so many layers in RAM",
    "MOELLAMA_PCIE": "0: a GPU never reads experts from RAM beside the CPU (default: where it is faster)",
    "MOELLAMA_VRAM": "Bytes of a GPU that a model may take (default: what is free)",
    "OLLAMA_GPU_OVERHEAD": "Reserve a portion of VRAM per GPU (bytes)",
    "OLLAMA_CONTEXT_LENGTH": "Context length to use unless otherwise specified (default: by memory)",
    "OLLAMA_DEBUG": "Show additional debug information (e.g. OLLAMA_DEBUG=1)",
    "OLLAMA_EDITOR": "Path to editor for interactive prompt editing (Ctrl+G)",
    "OLLAMA_HOST": "IP Address for the ollama server (default 127.0.0.1:11434)",
    "OLLAMA_KEEP_ALIVE": 'The duration that models stay loaded in memory (default "5m")',
    "OLLAMA_KV_CACHE_TYPE": "Quantization type for the K/V cache (default: f16)",
    "OLLAMA_LOAD_TIMEOUT": 'How long to allow model loads to stall before giving up (default "5m")',
    "OLLAMA_MAX_LOADED_MODELS": "Maximum number of loaded models",
    "OLLAMA_MAX_QUEUE": "Maximum number of queued requests",
    "OLLAMA_MODELS": "The path to the models directory",
    "OLLAMA_NO_CLOUD": "Disable Ollama cloud features (remote inference and web search)",
    "OLLAMA_NOHISTORY": "Do not preserve readline history",
    "OLLAMA_NOPRUNE": "Do not prune model blobs on startup",
    "OLLAMA_NUM_PARALLEL": "Maximum number of parallel requests",
    "OLLAMA_ORIGINS": "A comma separated list of allowed origins",
}
COMPLETION = "Print the completion script of a shell: bash, zsh, fish or powershell"
MODELS = ("OLLAMA_MODELS",)
RUN_VARIABLES = ("OLLAMA_EDITOR", "OLLAMA_HOST", "OLLAMA_NOHISTORY")

FSCK = "Look through the store for damage"
FSCK_FLAGS = (JSON, Flag("quick", "Do not hash what was hashed before and has not changed since", ours=True))

COMMANDS = (
    Command("serve", "", "Start Ollama", "serve:serve", (0, 0), (), ("start",), SERVE_VARIABLES, needs_server=False),
    Command("create", "MODEL", "Create a model", "create:create", (1, 1), CREATE_FLAGS),
    Command("show", "MODEL", "Show information for a model", "show:show", (1, 1), SHOW_FLAGS),
    Command("run", "MODEL [PROMPT]", "Run a model", "run:run", (1, MANY), RUN_FLAGS, variables=RUN_VARIABLES),
    Command("stop", "MODEL", "Stop a running model", "models:stop", (1, 1)),
    Command("pull", "MODEL", "Pull a model from a registry", "transfer:pull", (1, 1), (INSECURE, JSON)),
    Command("push", "MODEL", "Push a model to a registry", "transfer:push", (1, 1), (INSECURE, JSON)),
    Command("signin", "", "Sign in to ollama.com", "account:sign_in", (0, 0), variables=()),
    Command("login", "", "Sign in to ollama.com", "account:sign_in", (0, 0), variables=(), hidden=True),
    Command("signout", "", "Sign out from ollama.com", "account:sign_out", (0, 0), variables=()),
    Command("logout", "", "Sign out from ollama.com", "account:sign_out", (0, 0), variables=(), hidden=True),
    Command("list", "", "List models", "models:list_models", flags=(JSON,), aliases=("ls",)),
    Command("ps", "", "List running models", "models:list_running", flags=(JSON,)),
    Command("cp", "SOURCE DESTINATION", "Copy a model", "models:copy", (2, 2)),
    Command("rm", "MODEL [MODEL...]", "Remove a model", "models:remove", (1, MANY)),
    Command(
        "ab",
        "MODEL",
        "Compare this server with Ollama on the same model",
        "ab:ab",
        (1, 1),
        AB_FLAGS,
        (),
        MODELS,
        needs_server=False,
        ours=True,
    ),
    Command(
        "bench",
        "MODEL",
        "Measure how fast a model runs on this machine",
        "bench:bench",
        (1, 1),
        BENCH_FLAGS,
        (),
        MODELS,
        needs_server=False,
        ours=True,
    ),
    Command(
        "doctor",
        "[MODEL]",
        "Tell what this machine can do, and what a model would",
        "doctor:doctor",
        (0, 1),
        DOCTOR_FLAGS,
        (),
        MODELS,
        needs_server=False,
        ours=True,
    ),
    Command(
        "warmup",
        "[MODEL...]",
        "Compile the kernels that models need ahead of their first use",
        "warmup:warmup",
        (0, MANY),
        (JSON,),
        (),
        ("OLLAMA_MODELS", "OLLAMA_KV_CACHE_TYPE", "MOELLAMA_ISA"),
        needs_server=False,
        ours=True,
    ),
    Command("fsck", "", FSCK, "fsck:fsck", (0, 0), FSCK_FLAGS, (), MODELS, needs_server=False, ours=True),
    Command("help", "", "Help about any command", "", needs_server=False),
    Command("completion", "SHELL", COMPLETION, "completion:script", (1, 1), variables=(), needs_server=False, ours=True),
)


def own_flags(program: str) -> tuple[Flag, ...]:
    """The flags of the program itself."""
    return (Flag(HELP, f"help for {program}", short="h"), NO_WRAP, VERBOSE, VERSION_FLAG)
