"""The blog's settings; `config/blog.yaml` has their values."""

from msgspec import Struct

from config.settings import Limit, Positive


class Blog(Struct, frozen=True):
    most_posts: Positive
    post_limit: Limit
