"""Which tests are run against a mutant of which module, the nearest first: all of them are run by CI."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Selection:
    """Test files; of these the tests whose file, function or parameter is one of the names, or all where there are none."""

    files: tuple[str, ...]
    names: tuple[str, ...] = ()

    def takes(self, test: str) -> bool:
        """Whether a test with this id is one of them."""
        words = re.split(r"::|/|\[|\]|-", test)
        return not self.names or not set(self.names).isdisjoint(words)


SHARED_BY_METHODS = {
    "_ops": ("hinton", "dkd", "at", "fitnet", "rkd", "ofd", "semckd", "dml", "crd", "mlld", "ickd", "lwm", "vid", "norm", "ab"),
    "_alike": ("unlabelled_losses",),
    "ea_dkd": ("ea",),
    "ea_hinton": ("ea",),
    "ensemble_losses": ("ensembles",),
    "ensemble_probabilities": ("ensembles",),
    "fitnet_two_stage": ("fitnet",),
    "embed": ("unlabelled_losses",),
    "tokens": ("unlabelled_losses",),
    "pseudo_classes": ("unlabelled_losses",),
    "proteus": ("unlabelled_losses",),
}
"""modules whose tests have another name than theirs"""

OF_EVERY_METHOD = (
    ("tests/test_conformance.py", "tests/zoo/test_half_precision.py"),
    (
        *(f"tests/methods/test_{name}.py" for name in ("golden", "golden2", "golden3", "published_steps", "published_coefficients")),
        "tests/zoo/test_properties.py",
    ),
)
"""what runs every method by its name, the cheaper first"""

CACHE_TESTS = Selection(
    ("tests/test_teacher_cache.py", "tests/test_teacher_cache_damage.py"),
    (
        "test_views_that_come_again_are_asked_about_once",
        "test_what_one_process_wrote_another_reads_once_it_is_flushed",
        "test_rows_that_were_written_but_not_flushed_are_unknown_after_a_crash",
        "test_the_last_bits_of_an_answer_do_not_depend_on_who_else_is_asked_about",
        "test_what_is_read_must_fit_and_what_is_kept_besides_may",
        "test_stages_that_do_not_fit_leave_logits_and_embedding_their_cache",
        "test_disk_space_is_taken_as_rows_are_reserved",
        "test_the_memos_that_were_not_opened_for_longest_make_room",
        "test_half_precision_comes_back_as_it_was_said",
        "test_about_json_says_what_a_cache_stands_for",
        "test_a_row_is_known_where_every_column_knows_it",
        "test_a_seal_is_the_sum_that_its_text_gives",
        "test_any_flipped_bit_of_a_row_or_its_seal_makes_the_row_unknown",
        "test_a_row_of_another_cache_column_shape_dtype_or_place_does_not_fit",
        "test_what_is_known_is_compared_wherever_in_an_epoch_it_begins",
        "test_a_cache_is_removed_from_under_its_name_first",
        "test_a_float32_cache_is_refused_to_what_it_would_round",
        "test_two_mixes_with_one_partner_have_a_row_each",
        "test_on_a_cpu_processes_share_the_pages_of_the_file",
        "test_a_new_cache_has_answered_nothing",
        "test_a_difference_is_relative_to_the_largest_value",
        "test_as_many_rows_are_handled_at_once_as_fit_and_one_at_least",
        "test_ranges_of_pages_that_touch_or_overlap_are_one",
        "test_disk_space_that_was_taken_is_not_asked_for_again",
        "test_maps_before_the_activation_are_expected_of_networks_that_have_them_alone",
        "test_damage_is_told_when_it_is_met_and_once_more_at_the_end_with_what_was_met_since",
    ),
)
"""the tests of the cache that train nothing"""

DOSE_TESTS = (
    "test_the_ratio_is_that_of_a_plain_loop_of_sgd_and_autograd",
    "test_a_module_learns_from_the_first_batch_with_a_label_on",
    "test_peers_are_measured_under_the_dropout_that_they_train_with",
    "test_a_method_is_measured_at_the_epoch_that_its_batches_are_of",
    "test_the_warm_up_is_5_per_cent_of_the_steps_and_200_at_most",
    "test_a_weight_is_the_dose_over_the_ratio_to_two_digits",
    "test_a_ratio_that_is_no_positive_number_says_what_it_is",
)

TRAINING_TESTS = (
    "test_batch_norm_and_weights_of_the_teacher_are_as_they_were",
    "test_a_stop_in_the_middle_of_an_epoch_leaves_checkpoints_that_end_the_same",
    "test_same_seed_same_start_whatever_the_method_and_other_seeds_differ",
    "test_what_is_told_of_two_runs_adds_up_to_their_epochs_and_nothing_was_skipped",
    "test_a_teacher_at_chance_is_refused_with_its_accuracy",
)

TALLY_TESTS = ("test_bad_losses.py", *TRAINING_TESTS)

SEARCH_TESTS = (
    "test_what_searches_came_to_is_their_mean_with_students_interval_over_searches",
    "test_a_score_is_the_mean_gain_over_the_tables_of_several_benches_with_ranks",
    "test_a_score_is_made_of_the_refit_where_there_is_one",
    "test_tables_of_two_tasks_have_no_score",
)

RACE_TESTS = (
    "test_the_best_means_and_of_the_others_the_widest_intervals_go_on_with_the_controls",
    "test_the_rule_comes_to_the_same_whatever_the_seeds_that_it_added_come_to",
    "test_a_collapsed_method_and_one_whose_training_failed_take_no_part",
    "test_nothing_is_decided_while_a_run_of_the_refit_is_missing",
    "test_added_seeds_follow_those_of_the_refit_and_are_none_of_the_sweep",
    "test_the_table_holds_every_row_with_its_seeds_and_says_what_is_missing",
    "test_before_the_refit_the_table_names_every_method_without_a_number",
)

TRAINING, REGULARISE, STATISTICS = "tests/test_training.py", "tests/test_regularise.py", "tests/suite/test_stats.py"
LEADERBOARD, SEARCHES = "tests/suite/test_leaderboard.py", "tests/suite/test_searches.py"

BY_MODULE: dict[str, tuple[Selection, ...]] = {
    "kdzoo/training/calibration.py": (Selection(("tests/test_calibration.py",)),),
    "kdzoo/training/dot.py": (Selection(("tests/test_dot.py",)),),
    "kdzoo/training/optim.py": (
        Selection(("tests/test_optim.py",)),
        Selection(("tests/suite/test_paper_recipe.py", "tests/methods/test_published_steps.py")),
    ),
    "kdzoo/training/regularise.py": (Selection((REGULARISE,)),),
    "kdzoo/training/stacked.py": (Selection(("tests/test_stack.py",)), Selection((TRAINING,))),
    "kdzoo/training/tally.py": (
        Selection(("tests/test_bad_losses.py", TRAINING), TALLY_TESTS),
        Selection((TRAINING,)),
    ),
    "kdzoo/training/doses.py": (Selection(("tests/suite/test_doses.py",), DOSE_TESTS), Selection(("tests/suite/test_doses.py",))),
    "kdzoo/training/named_scores.py": (Selection(("tests/test_named_scores.py",)),),
    "kdzoo/training/member.py": (
        Selection((TRAINING,), TRAINING_TESTS),
        Selection((REGULARISE, "tests/test_processes_per_run.py", "tests/test_few_images.py", TRAINING)),
    ),
    "kdzoo/training/train.py": (Selection((TRAINING,), TRAINING_TESTS), Selection((TRAINING, REGULARISE))),
    **{f"kdzoo/teachers/{name}.py": (CACHE_TESTS, Selection(CACHE_TESTS.files)) for name in ("answers", "cache", "columns", "disk")},
    "kdzoo/suite/report/error_model.py": (Selection((STATISTICS,)), Selection(("tests/test_error_rates.py",))),
    "kdzoo/suite/report/intervals.py": (Selection((STATISTICS,)), Selection(("tests/test_error_rates.py",))),
    "kdzoo/suite/report/rules.py": (Selection((STATISTICS,)), Selection(("tests/suite/test_collapsed.py",))),
    "kdzoo/suite/report/over_pairs.py": (Selection(("tests/suite/test_over_pairs.py",)),),
    "kdzoo/suite/report/race.py": (Selection(("tests/suite/test_race.py",), RACE_TESTS), Selection(("tests/suite/test_race.py",))),
    "kdzoo/suite/report/searches.py": (
        Selection((SEARCHES,), SEARCH_TESTS[:1]),
        Selection((SEARCHES,)),
    ),
    "kdzoo/suite/report/score.py": (
        Selection((SEARCHES, "tests/suite/test_second_task.py"), SEARCH_TESTS[1:]),
        Selection((LEADERBOARD,)),
    ),
    "kdzoo/suite/report/selection.py": (
        Selection(("tests/suite/test_select.py", "tests/suite/test_choice.py", "tests/suite/test_collapsed.py")),
        Selection((LEADERBOARD,)),
    ),
    "kdzoo/suite/report/two_models.py": (Selection(("tests/suite/test_models.py",)),),
    "kdzoo/suite/report/verdict.py": (Selection(("tests/suite/test_verdict.py",)), Selection((LEADERBOARD,))),
    "kdzoo/suite/report/swept.py": (Selection(("tests/suite/test_swept.py",)), Selection(("tests/suite/test_second_task.py",))),
    "kdzoo/suite/report/leaderboard.py": (Selection((LEADERBOARD,)), Selection(("tests/suite/test_collapsed.py",))),
}
"""the modules of other rooms that compute numbers"""


def modules() -> dict[str, list[str]]:
    """The modules that mutants are made of, by area."""
    areas: dict[str, list[str]] = {"methods": [f"kdzoo/methods/{path.name}" for path in sorted((ROOT / "kdzoo/methods").glob("[!_]*.py"))]}
    areas["methods"] += ["kdzoo/methods/_ops.py", "kdzoo/methods/_alike.py"]
    for module in BY_MODULE:
        areas.setdefault(Path(module).parent.name, []).append(module)
    return areas


def selections(module: str) -> list[Selection]:
    """What is run against a mutant of this module, each only where it survived what stands before it."""
    if module in BY_MODULE:
        return list(BY_MODULE[module])
    name = Path(module).stem
    near = Selection(tuple(f"tests/methods/test_{test}.py" for test in SHARED_BY_METHODS.get(name, (name,))))
    return [near] if name.startswith("_") else [near, *(Selection(files, (name,)) for files in OF_EVERY_METHOD)]
