"""Training one network: device, losses, optimizers, schedules, steps and the loop over epochs."""
