"""Libraries that talk of their own affairs, silenced."""


def be_quiet() -> None:
    """Leave nothing but what transformers and diffusers raise, and transformers' errors.

    To be called before a pipeline of diffusers is imported: the import asks transformers for image processors, which
    complain that torchvision is not installed though nothing here uses them.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    import diffusers

    diffusers.utils.logging.set_verbosity(diffusers.utils.logging.CRITICAL)  # its errors are raised as well
    diffusers.utils.logging.disable_progress_bar()
