"""The 20 superclasses of CIFAR-100, each of five of its classes (https://www.cs.toronto.edu/~kriz/cifar.html). Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SUPERCLASSES: Mapping[str, str] = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
"""the classes of each, in the order and under the names of the set's own files"""


def superclass_of(classes: Sequence[str]) -> list[int]:
    """The number of the superclass of each of CIFAR-100's classes, by name; raises KeyError for the name of none."""
    numbers = {name: number for number, members in enumerate(SUPERCLASSES.values()) for name in members.split()}
    return [numbers[name.replace(" ", "_")] for name in classes]
