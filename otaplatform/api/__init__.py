"""REST v1: a thin adapter on the verbs of the apps. Its manners are described in docs/api.md."""
