"""What several algorithms share. A block imports no algorithm.

inner_loop.py         gradient descent on the support: loss, steps, optimizers, the learner
outer_loss.py         the loss of an episodic learner: adapt to the support, judge the answers to the query
target_kinds.py       what the targets are, and the refusal of those that an algorithm cannot take
backbone.py           a model as a source of features
metric_space.py       class means, distances and cosines
prototypes.py         learners that answer with the nearest class
networks.py           small networks beside the model
weight_generator.py   a network that writes parameters from a vector of the task
set_encoder.py        a vector of the task, read from its support
parameter_kinds.py    which parameters are of the last layer, and which of a normalisation
modulation.py         a model that a vector modulates
low_rank.py           updates of low rank to the kernels of a network
lstm.py               a long short-term memory cell
earlier_stages.py     the earlier stages that an option names
pretrained_body.py    the network of an earlier stage, as a start or as features
last_layer.py         the features that the last layer of any learner sees
output_distance.py    how far answers are from those of teachers
ensemble.py           earlier stages as members of one ensemble
related_inputs.py     inputs that say which concept a class belongs to, and models that do not see it
relation_graph.py     vectors that move towards those of their relatives in a graph
edge_list.py          a user's own graph, checked line by line
shuffled_edges.py     the control of a graph: its nodes have changed places
"""
