"""What goes wrong with data sets."""


class DatasetError(ValueError):
    """A data set is unknown, unreadable, incomplete or of another version."""
