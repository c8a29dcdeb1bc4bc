"""peft_core: parameter-efficient fine-tuning methods side by side, on equal terms.

The public names are in the rooms: `records` (specifications and events), `methods`, `backbones`, `tasks`, `metrics`,
`training`, `runs`, `report`. Importing this package loads none of them.
"""

__version__ = "0.1.0"
