"""One reader per dataset format; each converts the files' conventions to those of `fasthamer.data.sample.Labels`."""
