"""What other tools call a setting, and what it is here."""

# What to give, by the names that people try.
OURS = {
    "trainer.epochs": "epochs max_epochs num_epochs n_epochs nb_epoch num_train_epochs",
    "trainer.batch_size": "batch_size batch bs train_batch_size per_device_train_batch_size",
    "trainer.gpus=1 for a GPU, 0 for the CPU": (
        "gpus num_gpus n_gpus devices accelerator device cuda gpu use_cuda"
    ),
    "trainer.precision": "precision amp use_amp mixed_precision fp16 bf16",
    "trainer.compile": "compile jit torch_compile",
    "trainer.deterministic": "deterministic",
    "trainer.clip_norm": "gradient_clip_val clip_grad_norm grad_clip clipnorm max_grad_norm",
    "trainer.early_stopping": "early_stopping early_stop patience early_stopping_patience",
    "trainer.ema_decay": "ema ema_decay",
    "trainer.save_every": "save_every save_freq every_n_epochs save_top_k enable_checkpointing",
    "trainer.refresh_seconds": "refresh_rate progress_bar_refresh_rate",
    "optimizer.lr": "lr learning_rate base_lr init_lr",
    "optimizer.weight_decay": "weight_decay wd l2",
    "optimizer.momentum": "momentum",
    "model.dropout": "dropout dropout_rate drop_rate",
    "model.kernel_size": "kernel_size kernel_sizes filter_size kernel",
    "model.channels": "channels filters num_filters hidden_channels",
    "model.dense": "dense hidden_size hidden_units units",
    "model.batch_norm": "batch_norm batchnorm use_bn",
    "model=NAME": "arch architecture network net backbone model_name",
    "data=NAME": "dataset dataset_name",
    "data.root": "root data_dir data_path data_root",
    "data.limit": "limit limit_train_batches limit_val_batches overfit_batches fast_dev_run",
    "data.holdout_size": "val_split validation_split val_size val_fraction",
    "data.image_size": "image_size img_size input_size",
    "scheduler=NAME": "lr_scheduler lr_schedule",
    "resume": "ckpt_path ckpt checkpoint resume_from_checkpoint resume_from",
    "seed": "random_seed seed_everything random_state manual_seed",
    "hydra.run.dir": "default_root_dir output_dir out_dir log_dir logdir save_dir",
}
HABITS = {name: ours for ours, names in OURS.items() for name in names.split()}

# Why there is nothing to set.
NEEDLESS = {
    **dict.fromkeys(
        ("num_workers", "workers", "pin_memory", "persistent_workers"),
        "all images lie in memory, and nothing has to load them",
    ),
    **dict.fromkeys(
        ("max_steps", "num_steps", "max_iters", "max_time"),
        "a training is as long as trainer.epochs says",
    ),
    **dict.fromkeys(
        ("log_every_n_steps", "log_interval", "print_freq"),
        "figures are written after every epoch, and a terminal's bar moves each "
        "trainer.refresh_seconds",
    ),
    **dict.fromkeys(
        ("check_val_every_n_epoch", "val_check_interval", "eval_every"),
        "every epoch is validated",
    ),
    "accumulate_grad_batches": "a step is one batch, of the size trainer.batch_size",
    "strategy": "a training is on one device, which trainer.gpus chooses",
    "activation": "these networks have ReLU",
}
