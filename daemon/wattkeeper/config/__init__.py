"""Settings and policy: strict YAML in, frozen values or every problem at once out. Validation does no I/O."""
