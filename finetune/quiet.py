"""Libraries that talk of their own affairs, silenced."""


def be_quiet() -> None:
    """Leave errors only of transformers and diffusers, and none of their progress bars.

    To be called before a pipeline of diffusers is imported: the import asks transformers for image processors, which
    complain that torchvision is not installed though nothing here uses them.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
