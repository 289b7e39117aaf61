"""What words alone tell: TF-IDF of single words with a logistic regression, on the texts of a committed bench.

    python benchmarks/text_baseline.py                  # on those of results/text; needs WordNet (kdzoo data glosses)

It learns from the bench's training texts and names the classes of its test texts, as the students there do. How strongly the
regression is regularised is chosen on the bench's validation texts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from kdzoo.data.dataset import Subset
from kdzoo.data.loader import load_all
from kdzoo.data.texts import as_texts
from kdzoo.runs.store import RunFolder
from kdzoo.training.located import LocatedRun
from kdzoo.training.run_data import load_run_data

WEAKNESSES = (1.0, 10.0, 100.0)
"""the inverse weights of the penalty that are tried, scikit-learn's own first"""
MOST_STEPS = 1000
"""of the regression's solver"""

Labelled = tuple[list[str], list[int]]


def labelled_texts(part: Subset) -> Labelled:
    """The texts of a part and their classes."""
    return as_texts(load_all(part.images, part.targets.device).flatten(1).numpy()), part.targets.tolist()


def chosen(train: Labelled, validation: Labelled) -> Pipeline:
    """The trained classifier that is right for most validation texts, of equally good ones the first."""
    tried = [make_pipeline(TfidfVectorizer(), LogisticRegression(C=weakness, max_iter=MOST_STEPS)).fit(*train) for weakness in WEAKNESSES]
    return max(tried, key=lambda model: model.score(*validation))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="?", type=Path, default=Path("results/text"), help="its folder (default: %(default)s)")
    bench = parser.parse_args().bench
    run = LocatedRun.read(RunFolder(min((bench / "runs").glob("none-*"))))
    _, splits = load_run_data(run)
    if splits.val is None:
        parser.error(f"{bench}: expected a bench that holds texts out for validation")
    train, test = labelled_texts(splits.train), labelled_texts(splits.test)
    model = chosen(train, labelled_texts(splits.val))
    weakness = model[-1].C
    print(
        f"C = {weakness:g}: trained on {len(train[0]):,} texts, right for {100 * model.score(*test):.2f} % of {len(test[0]):,} test texts"
    )


if __name__ == "__main__":
    main()
