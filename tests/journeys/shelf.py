"""Where in-process toolboxes stand while a gateway runs, so that `python: journeys.shelf:<name>` finds them."""
