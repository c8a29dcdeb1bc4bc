"""Taking a trained adapter away: as a PEFT folder, merged into its backbone, or in the project's own small format."""
