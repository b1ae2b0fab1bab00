"""A user's own script, in the style of diffusers' text-to-image LoRA example: what StepBudget adds is marked `# +`.

Usage: own_trainer.py --pretrained_model_name_or_path BASE --train_data_dir IMAGES --output_dir RUN --max_train_steps N ...
"""

import argparse
import json
import os
from pathlib import Path
import signal
import sys

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image, ImageOps
from safetensors.torch import save_file
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextModel, CLIPTokenizer

from finetune.callback import StepBudget  # +


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pretrained_model_name_or_path", required=True)
    parser.add_argument("--train_data_dir", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--train_batch_size", type=int, default=4)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--max_train_steps", type=int)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--lr_scheduler", default="constant")
    parser.add_argument("--lr_warmup_steps", type=int, default=500)
    parser.add_argument("--adam_beta1", type=float, default=0.9)
    parser.add_argument("--adam_beta2", type=float, default=0.999)
    parser.add_argument("--adam_weight_decay", type=float, default=1e-2)
    parser.add_argument("--adam_epsilon", type=float, default=1e-8)
    parser.add_argument("--max_grad_norm", type=float, default=1.0)
    parser.add_argument("--mixed_precision", default="no")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--checkpointing_steps", type=int, default=1000)
    parser.add_argument("--resume_from_checkpoint")
    parser.add_argument("--settings", type=json.loads, default={}, help="for tests: of StepBudget")
    parser.add_argument("--fail_at", help="for tests: STEP:crash, STEP:term or STEP:quit")
    return parser.parse_args()


class CaptionedImages(Dataset):
    """Images of a folder and their captions of its metadata.jsonl."""

    def __init__(self, folder: str, size: int, tokenizer: CLIPTokenizer) -> None:
        lines = (Path(folder) / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        self.rows = [json.loads(line) for line in lines]
        self.folder, self.size, self.tokenizer = Path(folder), size, tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        with Image.open(self.folder / row["file_name"]) as file:
            image = ImageOps.fit(file.convert("RGB"), (self.size, self.size))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        pixels = pixels.view(self.size, self.size, 3).permute(2, 0, 1) / 127.5 - 1
        ids = self.tokenizer(
            row["text"], max_length=self.tokenizer.model_max_length, padding="max_length", truncation=True
        ).input_ids
        return {"pixel_values": pixels, "input_ids": torch.tensor(ids)}


def main() -> None:
    args = parse_args()
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        project_config=ProjectConfiguration(project_dir=args.output_dir),
    )
    if args.seed is not None:
        set_seed(args.seed)
    base = args.pretrained_model_name_or_path
    noise_scheduler = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder").requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae").requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet").requires_grad_(False)
    for module in (unet, vae, text_encoder):
        module.to(accelerator.device)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=targets))
    lora_layers = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        lora_layers,
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    budget = StepBudget(args, accelerator, unet, optimizer, args.settings)  # +
    args.train_data_dir = budget.training_folder()  # +

    dataset = CaptionedImages(args.train_data_dir, args.resolution, tokenizer)
    loader = DataLoader(dataset, batch_size=args.train_batch_size, shuffle=True, drop_last=True)
    lr_scheduler = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps * accelerator.num_processes,
        num_training_steps=args.max_train_steps * accelerator.num_processes,
    )
    unet, optimizer, loader, lr_scheduler = accelerator.prepare(unet, optimizer, loader, lr_scheduler)

    global_step = 0
    if args.resume_from_checkpoint == "latest":
        found = list(Path(args.output_dir).glob("checkpoint-*"))
        if found:
            latest = max(found, key=lambda path: int(path.name.split("-")[1]))
            accelerator.load_state(str(latest))
            global_step = int(latest.name.split("-")[1])

    while global_step < args.max_train_steps:
        unet.train()
        train_loss = 0.0
        for batch in loader:
            with accelerator.accumulate(unet):
                latents = vae.encode(batch["pixel_values"]).latent_dist.sample() * vae.config.scaling_factor
                noise = torch.randn_like(latents)
                steps = noise_scheduler.config.num_train_timesteps
                timesteps = torch.randint(0, steps, (len(latents),), device=latents.device)
                noisy = noise_scheduler.add_noise(latents, noise, timesteps)
                states = text_encoder(batch["input_ids"])[0]
                loss = mse_loss(unet(noisy, timesteps, states).sample.float(), noise.float())
                train_loss += loss.item() / args.gradient_accumulation_steps
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(lora_layers, args.max_grad_norm)
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                global_step += 1
                fail(args.fail_at, global_step)
                if budget.step(global_step, train_loss):  # +
                    break  # +
                train_loss = 0.0
                if global_step % args.checkpointing_steps == 0:
                    accelerator.save_state(str(Path(args.output_dir) / f"checkpoint-{global_step}"))
            if global_step >= args.max_train_steps:
                break
        if budget.ended:  # +
            break  # +

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        weights = get_peft_model_state_dict(accelerator.unwrap_model(unet))
        save_file(weights, str(Path(args.output_dir) / "pytorch_lora_weights.safetensors"))
    budget.end()  # +
    accelerator.end_training()


def fail(order: str | None, step: int) -> None:
    """What `--fail_at` asks for."""
    if order is None or int(order.split(":")[0]) != step:
        return
    if order.endswith("crash"):
        raise RuntimeError("told to crash")
    if order.endswith("term"):
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        sys.exit()


if __name__ == "__main__":
    main()
