"""The keys of a bench's configuration in words: what the help says of each, its default, its heading. Options of execution are declared
in `kdzoo.runs.options`."""

from __future__ import annotations

from kdzoo.cli.declare import OWN, SWEEP, TRAINING
from kdzoo.runs.options import PAIR, RESULTS, Option

KEYS: dict[str, Option] = {
    "methods": Option(
        "Methods, such as hinton,at; sums, such as at+hinton; or exact weights, such as 0.1*ce+0.9*hinton.",
        SWEEP,
        typed=str,
        metavar="NAME,...",
    ),
    "temperatures": Option("Temperatures to try, such as 1,2,4.", SWEEP, default="each method's own", typed=str, metavar="T,..."),
    "alphas": Option(
        "Weights of the teacher to try, such as 0,0.5,0.9: L = (1 - alpha) CE + alpha scale D.",
        SWEEP,
        default="the published weights",
        typed=str,
        metavar="A,...",
    ),
    "weights": Option("Factors on each method's weight to try, such as 0.3,1,3.", SWEEP, default="1", typed=str, metavar="W,..."),
    "doses": Option(
        "Doses to try, such as 0.03,0.1,0.3,1, instead of alphas and weights. A dose is the size of a method's gradient "
        "relative to that of cross-entropy; it is measured once on these networks and sets the weight.",
        SWEEP,
        default="none",
        typed=str,
        metavar="D,...",
    ),
    "doses_from": Option(
        "Reuse the doses measured in this bench's folder where networks, data and recipe are the same.",
        SWEEP,
        default="none",
        typed=str,
        metavar="FOLDER",
    ),
    "grid": Option(
        "METHOD.FIELD=VALUE,...: values of a hyper-parameter, or of METHOD.dose, to try (repeatable).",
        SWEEP,
        default="none",
        typed=list[str],
        metavar="AXIS",
    ),
    "tune": Option(
        "Try the first K settings of every method's own search list, instead of the axes above.",
        SWEEP,
        default="3 in the default bench, else off",
        typed=int,
        metavar="K",
    ),
    "refit": Option(
        "Train the chosen settings again, with fresh seeds, on the whole training set.",
        SWEEP,
        default="the recipe's",
        flags=("--refit/--no-refit",),
    ),
    "budget": Option(
        "Search by successive halving: all runs of the sweep together cost at most N whole runs, that is N times a run's epochs; teachers, "
        "pretrain stages and the refit come on top. Every setting is trained for a few epochs, the best third on validation for three "
        "times as many, and so on. The others are paused, have no row, and may go on later.",
        SWEEP,
        default="every setting is trained to the end",
        typed=int,
        metavar="N",
    ),
    "seeds": Option(
        "How many seeds (3: seeds 0, 1, 2), or which ones: a list such as 5,7, or 5, (with its comma) for one.",
        SWEEP,
        default="3",
        typed=str,
        metavar="N",
    ),
    "control_seeds": Option(
        "More seeds for the student alone and plain KD than for the other methods. Comparisons are then no longer paired by seed.",
        SWEEP,
        default="as --seeds",
        typed=int,
        metavar="N",
    ),
    "refit_seeds": Option("Number of seeds for the refit.", SWEEP, default="as many as the sweep's", typed=int, metavar="N"),
    "plugin": Option(
        "A Python file that registers methods, networks, data sets, pairs or recipes (repeatable).",
        OWN,
        typed=list[str],
        metavar="FILE",
    ),
    "pairs": Option(
        "Named pairs (see `kdzoo pairs`), or TEACHER/STUDENT of any two networks.",
        PAIR,
        default="digits, or the pair that goes with the data",
        typed=str,
        metavar="T/S,...",
    ),
    "teacher": Option(
        "A network to train, NAME:pretrained, a file of weights, NAME:FILE, or a run's id; then @small, @SIZE, "
        "@norm=imagenet, @weights=ema, @columns=NAME (it scores that column alone). Or saved:FILE, a "
        "file of a teacher's answers (`kdzoo teachers save`).",
        PAIR,
        default="the pair's",
        typed=str,
        metavar="NAME",
    ),
    "student": Option(
        "A network as the recipe starts it (mostly at random), NAME:random, NAME:pretrained or NAME:FILE.",
        PAIR,
        default="the pair's",
        typed=str,
        metavar="NAME",
    ),
    "data": Option("A data set's name, or folder:PATH; see `kdzoo data`.", PAIR, typed=str, metavar="NAME"),
    "data_root": Option(
        "The folder of the data sets.", PAIR, default="KDZOO_DATA, else data/ in the cache folder, KDZOO_CACHE", typed=str, metavar="FOLDER"
    ),
    "task": Option(
        "features: a teacher without classes and a student that is a backbone, whose embeddings are distilled without labels.",
        PAIR,
        default="the data's own",
        typed=str,
        metavar="NAME",
        choices=("features",),
    ),
    "columns": Option(
        "Columns of targets to learn, the primary one first, such as digit,speaker; with weights, 0.7*digit,0.3*speaker.",
        PAIR,
        default="the first",
        typed=str,
        metavar="NAME,...",
    ),
    "limit": Option("Number of training images to use.", PAIR, default="all", typed=int, metavar="N"),
    "label_fraction": Option(
        "Share of the student's training images that keep their labels; on the rest only the distillation loss acts.",
        PAIR,
        typed=float,
        metavar="SHARE",
    ),
    "transfer_classes": Option(
        "Classes whose images the student is taught on: 7,8 for these, -3 for all but 3. The teacher learns all classes.",
        PAIR,
        default="all",
        typed=str,
        metavar="CLASS,...",
    ),
    "transfer_data": Option(
        "More images for the student, without labels: folder:PATH, or a data set's name for its training images.",
        PAIR,
        default="none",
        typed=str,
        metavar="NAME",
    ),
    "transfer_only": Option("Teach the student on --transfer-data alone, without the training images and their labels.", PAIR),
    "val_fraction": Option(
        "Share of the training images held out for validation; 0 for reproductions.",
        PAIR,
        default="the recipe's",
        typed=float,
        metavar="SHARE",
    ),
    "split_seed": Option("Seed of the split, which teacher and students share.", PAIR, typed=int, metavar="N"),
    "skip_unreadable": Option(
        "Skip files of a folder that cannot be read; they are counted and listed. Otherwise they are an error.", PAIR
    ),
    "licence": Option(
        "Refuse, before any training, a teacher, a student's start or data under another licence than permissive ones (Apache-2.0, MIT, "
        "BSD, ISC, CC0, CC-BY); permissive,unknown also accepts unknown ones.",
        PAIR,
        default="any",
        typed=str,
        metavar="WHICH",
        choices=("permissive", "permissive,unknown"),
    ),
    "searches": Option(
        "Repeat choosing and refitting so many times, each with seeds of its own, in BENCH/search-1, search-2, ...: what a search finds "
        "varies too. searches.md and searches.csv in the bench's folder have all of them together.",
        SWEEP,
        default="off",
        typed=int,
        metavar="N",
    ),
    "edition": Option(
        "Refuse whatever is not of this frozen edition of the benchmark (pairs, data, recipes, teachers, versions), such as 2026.12; "
        "the tables then name it.",
        SWEEP,
        default="none",
        typed=str,
        metavar="NAME",
    ),
    "fine_tune": Option("First fine-tune a teacher that was made for other classes on this data set.", PAIR),
    "recipe": Option(
        "A recipe's name, or a YAML file; see `kdzoo recipes`.",
        TRAINING,
        default="the one that goes with the data",
        typed=str,
        metavar="NAME",
    ),
    "epochs": Option("Number of epochs.", TRAINING, default="the recipe's", typed=int, metavar="N"),
    "lr": Option("Learning rate.", TRAINING, default="the recipe's", typed=float, metavar="RATE"),
    "set": Option(
        "Set another key, such as recipe.batch_size=128 or recipe.augment.cutout=8 (repeatable).",
        TRAINING,
        default="none",
        typed=list[str],
        metavar="KEY=VALUE",
    ),
    "results": Option("The folder of all benches.", RESULTS, typed=str, metavar="FOLDER"),
    "name": Option(
        "The bench's name: its folder below --results.",
        RESULTS,
        default="digits for the default bench, else bench",
        typed=str,
        metavar="NAME",
    ),
    "wandb": Option(
        "Log to Weights & Biases: online, offline or disabled.",
        RESULTS,
        default="WANDB_MODE, else disabled",
        typed=str,
        metavar="MODE",
        choices=("online", "offline", "disabled"),
    ),
}
"""the keys that are not options of execution, in the order of the help; a default of None is the declared one"""
