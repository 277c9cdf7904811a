"""A small shop: prices baskets, gives discounts."""
