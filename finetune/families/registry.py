"""The families by name; only the one that is used is imported."""

from finetune.families.base import Family


def make_family(name: str) -> Family:
    """The family of files.FamilyFiles.name."""
    if name == "sdxl":
        from finetune.families.sdxl import StableDiffusionXL

        return StableDiffusionXL()
    if name == "sd3":
        from finetune.families.stable_diffusion_3 import StableDiffusion3

        return StableDiffusion3()
    from finetune.families.stable_diffusion import StableDiffusion

    return StableDiffusion()
