"""The pages of docs/studies: one module a study, each with `page(cells) -> Page`."""
