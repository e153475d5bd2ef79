"""The plan of a GAN's training step: its phases, their order, and the averages that follow."""

import keras

from trainer.config.choices import UpdateOrder
from trainer.errors import NetworkError
from trainer.models.compiled_state import CompiledModel, CompiledState, ema_name
from trainer.models.optimizer_view import OptimizerView
from trainer.models.validation import check_layers, trained_variables
from trainer.training import schedules
from trainer.training.plan import Ema, Phase, PhaseGroup, StepPlan


def step_plan(gan: CompiledModel, global_batch_size: int, horizontal_flips: bool = False) -> StepPlan:
    """Returns the plan of the step of a compiled `GAN`.

    Raises:
        NetworkError: If the networks were changed since `compile` in a way that the optimizers do not allow.
    """
    state = gan.compiled_state
    _check_replaced(gan, state)
    _check_trainable(gan, state)
    emas = [name for name in gan.ema_networks if ema_name(name) in state.networks]
    half_life = state.ema_half_life_images
    if not callable(half_life):
        half_life = schedules.ema_ramp_up(half_life, global_batch_size)
    not_trained = {ema_name(name) for name in emas}
    return StepPlan(
        forward=gan.forward,
        groups=_groups(gan, state),
        networks=tuple(network for name, network in state.networks.items() if name not in not_trained),
        emas=tuple(Ema(state.networks[name], state.networks[ema_name(name)], half_life) for name in emas),
        global_batch_size=global_batch_size,
        seed=state.seed,
        jit_compile=state.jit_compile,
        divergence=state.divergence,
        horizontal_flips=horizontal_flips,
        salt=state.divergence.num_rollbacks,
        accumulate_steps=state.accumulate_steps,
    )


def _groups(gan: CompiledModel, state: CompiledState) -> tuple[PhaseGroup, ...]:
    """Both phases in one group if they are simultaneous; else the discriminator's phases, then the generator's."""
    generator = _phase(gan, state, "generator")
    discriminator = [_phase(gan, state, name) for name in state.objective.discriminator_update.phases]
    if state.update_order == UpdateOrder.SIMULTANEOUS:
        return (PhaseGroup((*discriminator, generator)),)
    return (*(PhaseGroup((phase,), state.discriminator_repeats) for phase in discriminator), PhaseGroup((generator,)))


def _phase(gan: CompiledModel, state: CompiledState, name: str) -> Phase:
    group = state.objective.optimizer_of(name)
    networks = [state.networks[network] for network in gan.optimizer_groups[group]]
    if group == "discriminator" and state.objective.augmenter is not None:
        networks.append(state.objective.augmenter)
    return Phase(name, tuple(networks), state.optimizers[group])


def _check_replaced(gan: CompiledModel, state: CompiledState) -> None:
    """Rejects networks and optimizers that were assigned to attributes after `compile`, which training would ignore."""
    if not isinstance(gan.optimizer, OptimizerView):
        raise NetworkError(
            "optimizer was set after compile, which has no effect; set learning rates of optimizers, or create another "
            "GAN and compile it with that optimizer."
        )
    replaced = [name for name, network in state.networks.items() if vars(gan).get(name, network) is not network]
    if replaced:
        raise NetworkError(
            f"{replaced[0]} was set after compile, and its optimizer was built for the previous network; set the "
            f"weights of {replaced[0]}, or create another GAN."
        )


def _check_trainable(gan: CompiledModel, state: CompiledState) -> None:
    """Rejects weights that became trainable after `compile`. Weights may be frozen, and thawed again."""
    for name, network in state.networks.items():
        check_layers(name, network)
    for group, variables in trained_variables(gan.optimizer_groups, state.networks).items():
        optimizer = state.optimizers[group]
        known = {id(variable) for variable in state.variables[group]}
        new = [variable.path for variable in variables if id(variable) not in known]
        if new or (len(variables) != len(known) and isinstance(optimizer, keras.optimizers.MultiOptimizer)):
            raise NetworkError(
                f"trainable was changed after compile, and the optimizer of the {group} was built for other weights"
                f"{f' ({new[0]} is new)' if new else ''}; save_weights, create another GAN with trainable set in its "
                "methods get_*, compile it, and load_weights."
            )
