"""What clipalign brings along, registered the way any package registers its own.

This module is the entry point `builtins` of the group `clipalign`. It names targets and imports
none of them.
"""

from __future__ import annotations

from clipalign.hookspecs import API_VERSION, Register, hookimpl

CLIPALIGN_API = API_VERSION

_KNOWN = {  # clipalign/datasets/known/catalogue.yaml says more of each
    "caltech101": "Objects of 100 classes.",
    "oxford-pets": "Cats and dogs of 37 breeds.",
    "stanford-cars": "Cars of 196 makes, models and years.",
    "flowers102": "Flowers of 102 kinds.",
    "fgvc-aircraft": "Aircraft of 100 variants.",
    "dtd": "Textures of 47 kinds.",
    "sun397": "Scenes of 397 kinds.",
    "eurosat": "Sentinel-2 satellite images of ten land uses.",
    "food101": "Dishes of 101 kinds.",
    "imagenet": "Objects of 1,000 classes.",
    "imagenet-100": "A hundred classes of ImageNet.",
    "rta-100": "Photographs of 100 kinds of objects with a wrong word on a note.",
    "paint": "Photographs of objects with a wrong word on a note.",
    "disentangling": "Photographs of 20 objects, each with one of eight words on it or with none.",
    "scam": "Photographs of objects with an attack word on a note.",
    "fairface": "Faces balanced over seven groups.",
    "utkface": "Faces from 0 to 116 years.",
    "vl-bias": "Women and men of 52 activities and 13 occupations.",
    "visogender": "Workers of 23 occupations with an object of theirs (the part OO).",
}


@hookimpl
def register_objectives(register: Register) -> None:
    """The four preference losses of the paper's method, and the control."""
    home = "clipalign.objectives"
    register("dpo", f"{home}.dpo:DPO", summary="Direct preference optimisation over pairs.")
    register("ipo", f"{home}.ipo:IPO", summary="Identity preference optimisation: squared margin.")
    register("kto", f"{home}.kto:KTO", summary="Kahneman-Tversky: judgements, paired or not.")
    register("rlhf", f"{home}.rlhf:RLHF", summary="Exact expected reward less KL; no sampling.")
    register(
        "cross-entropy",
        f"{home}.cross_entropy:CrossEntropy",
        summary="The control: fine-tuning on the preferred text.",
    )


@hookimpl
def register_regularisers(register: Register) -> None:
    """Divergences between policy and reference on the regulariser images."""
    home = "clipalign.regularisers"
    register("forward-kl", f"{home}:ForwardKL", summary="KL(reference ‖ policy), as in the paper.")
    register("reverse-kl", f"{home}:ReverseKL", summary="KL(policy ‖ reference).")
    register(
        "js", f"{home}:JensenShannon", summary="Jensen-Shannon divergence: symmetric, bounded."
    )
    register("none", f"{home}:NoRegulariser", summary="No regulariser.")


@hookimpl
def register_tasks(register: Register) -> None:
    """Makers of preferences."""
    register(
        "typographic",
        "clipalign.tasks.typographic:Typographic",
        summary="Prefer what is shown to the wrong word written on it.",
        suite="typographic",
        # stiff enough that W_t stays sound for t < 0, where reading is turned up
        train={"head": {"orthogonality": 0.04}},
    )
    home, asked = "clipalign.tasks.concept", ("concept", "attribute", "activity")
    register(
        "concept",
        f"{home}:ConceptTask",
        summary="Flip a concept of your own in the captions, and hold everything else.",
        suite="gender",
        suite_options=asked,
        trainable="head",
        # free: to reverse what images and texts share, some singular values must grow
        train={"head": {"epochs": 40, "batch_size": 64, "orthogonality": 0.0}},
    )
    register(
        "gender",
        f"{home}:GenderTask",
        summary="Flip woman and man in the captions, and hold everything else.",
        suite="gender",
        suite_options=asked,
        dataset="emoji-people",
        trainable="head",
        # free: to reverse what images and texts share, some singular values must grow
        train={"head": {"epochs": 40, "batch_size": 64, "orthogonality": 0.0}},
    )

    register(
        "preferences",
        "clipalign.tasks.preferences:Preferences",
        summary="Your own file: image, chosen, rejected, or image, text, desirable.",
        table={"label_column": None, "repeats": True, "wrong_rows": "quarantine"},
    )


@hookimpl
def register_datasets(register: Register) -> None:
    """Sources of images.

    `path` is the option that takes what stands after NAME:; results on a dataset that reads
    whatever lies there are `named_by_path`.
    """
    home = "clipalign.datasets"
    register(
        "emoji",
        f"{home}.emoji:EmojiWorld",
        summary="The embedded emoji art, 64 px.",
        epochs=2,  # over three pictures of each drawing: at equal steps as good as more passes
    )
    register(
        "emoji-people",
        f"{home}.emoji_people:EmojiPeople",
        summary="Women and men of the embedded emoji art.",
    )
    register(
        "folder",
        f"{home}.folder:Folder",
        summary="A folder of images, one folder a class.",
        path="root",
        named_by_path=True,
    )
    register(
        "table",
        f"{home}.table:Table",
        summary="A CSV, TSV, JSONL or Parquet table of image files.",
        path="path",
        named_by_path=True,
    )
    register(
        "webdataset",
        f"{home}.webdataset:WebDataset",
        summary="Tar shards of images, each beside its json, cls or txt.",
        path="path",
        named_by_path=True,
    )
    register(
        "huggingface",
        f"{home}.huggingface:HuggingFace",
        summary="A dataset of the library `datasets`: saved on disk, or of the hub when asked.",
        path="path",
        named_by_path=True,
    )
    for name, holds in _KNOWN.items():
        target = f"{home}.known.dataset:{name.replace('-', '_')}"
        register(name, target, summary=holds, path="root")


@hookimpl
def register_suites(register: Register) -> None:
    """Evaluations."""
    register(
        "typographic",
        "clipalign.evals.typographic:TypographicSuite",
        summary="Accuracy clean and attacked, attack success, KL to the reference.",
        axes=("attacked_accuracy", "clean_accuracy", "kl_to_reference"),
        units="clipalign.evals.units:typographic",
    )
    register(
        "gender",
        "clipalign.evals.gender:GenderSuite",
        summary="Gender and activity accuracy, and whom a search for an occupation brings up.",
        axes=("mean_abs_bias_at_k", "activity_accuracy", "retention_accuracy"),
        units="clipalign.evals.units:gender",
    )
    register(
        "reading",
        "clipalign.evals.reading:ReadingSuite",
        summary="The written word (OCR) or the object (OD): which is chosen.",
        units="clipalign.evals.units:reading",
    )
    register(
        "retention",
        "clipalign.evals.retention:RetentionSuite",
        summary="Accuracy and Recall@k on concepts never aligned on, distance to the reference.",
        axes=("accuracy", "kl_to_reference"),
        units="clipalign.evals.units:retention",
    )


@hookimpl
def register_transforms(register: Register) -> None:
    """Edits of a trained model that need no training."""
    home = "clipalign.transforms"
    register("power", f"{home}.power:Power", summary="W_t of a trained head: t up, down, neutral.")
    register(
        "interpolate",
        f"{home}.interpolate:Interpolate",
        summary="Between two checkpoints (PAINT, WiSE-FT).",
    )
    register(
        "project",
        f"{home}.project:Project",
        summary="Biased-prompt projection of the text side, plain or calibrated.",
    )


@hookimpl
def register_commands(register: Register) -> None:
    """The command line, in the order in which its help lists it."""
    home = "clipalign.cli"
    register("demo", f"{home}.demo:app", summary="Walk through both tasks in a few minutes.")
    register("prepare", f"{home}.prepare:app", summary="Turn labelled images into preferences.")
    register("train", f"{home}.train:app", summary="Align a model with preferences.")
    register("transform", f"{home}.transform:app", summary="Turn what was learnt, or undo it.")
    register("eval", f"{home}.eval:app", summary="Measure models, with intervals.")
    register("retrieve", f"{home}.retrieve:app", summary="Search images with several models.")
    register("report", f"{home}.report:app", summary="Show results as one page, with images.")
    register("compare", f"{home}.compare:app", summary="Methods × seeds × models, side by side.")
    register("export", f"{home}.export:app", summary="Write a model for others, with its card.")
    register("runs", f"{home}.runs:app", summary="List, show, compare and remove training runs.")
    register("datasets", f"{home}.datasets:app", summary="List, show and check known datasets.")
    register("cache", f"{home}.cache:app", summary="What is kept to be used again, and its size.")
    register("config", f"{home}.config:app", summary="Show, check and copy configurations.")
    register("plugins", f"{home}.plugins:app", summary="List, show, diagnose and write plugins.")
