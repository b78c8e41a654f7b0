"""The accelerator description: schema, presets, DRAM standards."""
