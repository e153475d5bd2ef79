"""The gradients of a group of phases: stages 2 and 3 of a step. Shapes: `B` images of a replica."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.errors import NetworkError
from trainer.networks.layers import PER_SAMPLE_SEED, micro_batch
from trainer.training import graph_names as graph_names  # gives layers their names in graphs
from trainer.training.plan import Losses, Phase, PhaseGroup, StepPlan, buffers_of
from trainer.training.rng import StepRng, seed_states


def gradient_function(
    group: PhaseGroup, plan: StepPlan, buffers: list[keras.Variable], num_replicas: int
) -> Callable[..., tuple[list[list[tf.Tensor]], dict[str, tf.Tensor], list[tf.Tensor]]]:
    """Returns a function that computes the gradients of a group of phases. It reads variables and writes none.

    With `accumulate_steps=K`, it runs one micro-batch after another and adds their gradients, so that the memory of a
    pass is that of a micro-batch. A micro-batch is a part of the replica's batch, with the same images and random
    numbers as the same part of a whole batch.
    """
    owned = {id(variable) for phase in group.phases for network in phase.networks for variable in buffers_of(network)}
    seeds = seed_states(plan.networks)
    shared = [PER_SAMPLE_SEED in state.path for state in seeds]

    def compute_gradients(
        images: tf.Tensor,
        targets: tf.Tensor | None,
        step: tf.Tensor,
        replica: tf.Tensor,
        repeat: int,
        values: list[tf.Tensor],
        part: tf.Tensor | int = 0,
    ) -> tuple[list[list[tf.Tensor]], dict[str, tf.Tensor], list[tf.Tensor]]:
        """Returns the gradients of each phase, the logs, and the values of the buffers after the pass.

        `part` is the index of the micro-batch, whose images and targets these are.
        """
        num_parts = plan.accumulate_steps
        purpose = f"{'+'.join(group.names)}/{repeat}"
        rng = StepRng(plan.seed, step, images.shape[0], replica * num_parts + part, purpose, repeat, plan.salt)
        state = [*zip(buffers, values, strict=True), *zip(seeds, rng.seeds(shared), strict=True)]
        with tf.GradientTape(persistent=len(group.phases) > 1) as tape:
            with keras.StatelessScope(state, collect_losses=True) as scope, micro_batch(part, num_parts):
                losses, metrics = plan.forward(images, targets, rng, group.names)
            _check_layer_losses(scope)
            _check_assignments(scope, group)
            objectives = {
                phase.name: _objective(phase, losses, images.shape[0], plan.global_batch_size, num_replicas * num_parts)
                for phase in group.phases
            }
        gradients = [_gradients(tape, objectives[phase.name], phase) for phase in group.phases]
        if num_parts > 1:  # the gradients of an embedding are tf.IndexedSlices, which cannot be added
            gradients = tf.nest.map_structure(tf.convert_to_tensor, gradients)
        logs = {f"loss/{name}": objective for name, objective in objectives.items()}
        for name in group.names:
            for metric, value in metrics.get(name, {}).items():
                logs[metric] = tf.reduce_sum(tf.cast(value, tf.float32)) / plan.global_batch_size
        after = [
            scope.get_current_value(variable) if id(variable) in owned else value
            for variable, value in zip(buffers, values, strict=True)
        ]
        return gradients, logs, after

    if plan.accumulate_steps == 1:
        return compute_gradients
    merged = [variable if id(variable) in owned and is_summed(variable) else None for variable in buffers]
    return _accumulated(compute_gradients, plan.accumulate_steps, merged)


def is_summed(buffer: keras.Variable) -> bool:
    """Returns whether the values of replicas or micro-batches are summed to merge them."""
    dtype = tf.as_dtype(buffer.dtype)
    return dtype.is_floating or (buffer.aggregation == "sum" and not dtype.is_bool)


def _accumulated(
    compute_gradients: Callable[..., Any], num_parts: int, merged: list[keras.Variable | None]
) -> Callable[..., Any]:
    """Returns a function that runs `compute_gradients` on one micro-batch after another.

    It adds gradients and logs. Every micro-batch starts with the same buffers, which are merged as those of replicas.

    Args:
        compute_gradients: Function to run.
        num_parts: Number of micro-batches.
        merged: Buffers whose values are summed, or averaged; None for those that keep the value of the first part.
    """

    def accumulate(
        images: tf.Tensor,
        targets: tf.Tensor | None,
        step: tf.Tensor,
        replica: tf.Tensor,
        repeat: int,
        values: list[tf.Tensor],
    ) -> Any:
        # One graph for all micro-batches. It belongs to this replica, whose variables it reads.
        compiled = tf.function(compute_gradients, autograph=False)

        def run(part: tf.Tensor | int) -> Any:
            parts = [None if whole is None else _part_of(whole, part, num_parts) for whole in (images, targets)]
            return compiled(*parts, step, replica, repeat, values, tf.convert_to_tensor(part))

        first = run(0)
        num_others = len(tf.nest.flatten(first)) - len(merged)
        is_added = [True] * num_others + [buffer is not None for buffer in merged]

        def add(part: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            terms = tf.nest.flatten(run(part))
            pairs = zip(sums, terms, is_added, strict=True)
            return part + 1, [total + term if adds else total for total, term, adds in pairs]

        _, sums = tf.while_loop(
            lambda part, _: part < num_parts, add, (tf.constant(1), tf.nest.flatten(first)), parallel_iterations=1
        )
        gradients, logs, after = tf.nest.pack_sequence_as(first, sums)
        new_values = [
            total / num_parts if buffer is not None and buffer.aggregation != "sum" else total
            for buffer, total in zip(merged, after, strict=True)
        ]
        return gradients, logs, new_values

    return accumulate


def _part_of(whole: tf.Tensor, part: tf.Tensor | int, num_parts: int) -> tf.Tensor:
    """Returns a micro-batch [B/K, ...] of a batch [B, ...]."""
    return tf.reshape(whole, [num_parts, whole.shape[0] // num_parts, *whole.shape[1:]])[part]


def _objective(phase: Phase, losses: Losses, num_images: int, global_batch_size: int, num_replicas: int) -> tf.Tensor:
    """The scalar that a phase minimizes: this replica's part of the mean loss, and of the networks' own terms."""
    shape = tuple(losses[phase.name].shape) if phase.name in losses else "nothing"
    if shape != (num_images,):
        raise NetworkError(
            f"forward returns {shape} as the loss of the phase {phase.name}, expected one number per image, "
            f"({num_images},); do not average over the batch."
        )
    terms = [tf.cast(term, tf.float32) / num_replicas for term in phase.regularizers]
    return tf.add_n([tf.reduce_sum(losses[phase.name]) / global_batch_size, *terms])


def _check_layer_losses(scope: keras.StatelessScope) -> None:
    """Rejects losses that layers add during a forward pass."""
    if scope.losses:
        raise NetworkError(
            "a layer has an activity_regularizer or calls add_loss, which have no effect here; remove it, or add the "
            "term in GAN.add_losses."
        )


def _check_assignments(scope: keras.StatelessScope, group: PhaseGroup) -> None:
    """Rejects a generator that assigns its trained weights during a forward pass.

    The optimizer alone writes these weights, so that samples would use other weights than the loss. A discriminator
    makes no samples, and may do so.
    """
    generator_variables = [v for phase in group.phases if phase.name == "generator" for v in phase.variables]
    for variable in generator_variables:
        if scope.get_current_value(variable) is not None:
            raise NetworkError(
                f"a layer of the generator assigns {variable.path} in its call, as Keras's SpectralNormalization does, "
                "and samples would not use that value; take SpectralConv2D or SpectralDense of trainer.networks.layers."
            )


def _gradients(tape: tf.GradientTape, objective: tf.Tensor, phase: Phase) -> list[tf.Tensor]:
    variables = phase.variables
    gradients = tape.gradient(objective, [variable.value for variable in variables])
    missing = [variable.path for variable, gradient in zip(variables, gradients, strict=True) if gradient is None]
    if missing:
        raise NetworkError(
            f"the {phase.name} phase gives no gradient to {', '.join(missing)}; connect every layer of the network to "
            "its output, or set trainable=False on the layers that must not change."
        )
    return gradients
