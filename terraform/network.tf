# Security groups, in both directions. DNS needs no rule: the VPC's resolver is outside of security groups.

data "aws_vpc" "selected" {
  region = var.aws_region
  id     = var.existing_vpc
}

locals {
  # scheme and port of the Admin API's URL; a host in brackets is IPv6.
  kong_url  = regex("^(?P<scheme>https?)://(?:\\[[^]]*\\]|[^/:]+)(?::(?P<port>[0-9]+))?", local.kong_admin_api)
  kong_port = try(tonumber(local.kong_url.port), null) != null ? tonumber(local.kong_url.port) : (local.kong_url.scheme == "https" ? 443 : 80)
  # A VPC can have several ranges; the first one is among them.
  vpc_cidrs = toset(concat(
    [data.aws_vpc.selected.cidr_block],
    [for range in data.aws_vpc.selected.cidr_block_associations : range.cidr_block if range.state == "associated"],
  ))
  kong_cidr = var.kong_security_group_id != null ? [] : (
    length(var.kong_cidr_blocks) > 0 ? var.kong_cidr_blocks : tolist(local.vpc_cidrs)
  )
}

resource "aws_security_group" "relay" {
  region      = var.aws_region
  name        = var.security_group
  description = "Kong audit relay: to Kong, its ledger and AWS"
  vpc_id      = var.existing_vpc
  tags        = var.resource_tags

  # A group in use cannot be deleted: with a new name the new one comes first. Lambda's network interfaces hold the
  # old one for up to 40 minutes after the function has let go.
  timeouts {
    delete = "45m"
  }

  lifecycle {
    create_before_destroy = true
  }

  # Lambda deletes a function's network interfaces with the function's role. So role and policies outlive the group, which
  # cannot go while there are interfaces.
  depends_on = [aws_iam_role_policy.network, aws_iam_role_policy.relay]
}

# The one rule to everywhere. PutAuditEvents has no VPC endpoint and no fixed range of addresses.
resource "aws_vpc_security_group_egress_rule" "aws" {
  region            = var.aws_region
  security_group_id = aws_security_group.relay.id
  description       = "AWS APIs over HTTPS"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
  tags              = var.resource_tags
}

resource "aws_vpc_security_group_egress_rule" "kong" {
  for_each = toset(local.kong_cidr)

  region            = var.aws_region
  security_group_id = aws_security_group.relay.id
  description       = "Kong Admin API"
  ip_protocol       = "tcp"
  from_port         = local.kong_port
  to_port           = local.kong_port
  cidr_ipv4         = each.value
  tags              = var.resource_tags
}

resource "aws_vpc_security_group_egress_rule" "kong_group" {
  count = var.kong_security_group_id != null ? 1 : 0

  region                       = var.aws_region
  security_group_id            = aws_security_group.relay.id
  description                  = "Kong Admin API"
  ip_protocol                  = "tcp"
  from_port                    = local.kong_port
  to_port                      = local.kong_port
  referenced_security_group_id = var.kong_security_group_id
  tags                         = var.resource_tags
}

resource "aws_vpc_security_group_ingress_rule" "kong_from_relay" {
  count = var.kong_security_group_id != null ? 1 : 0

  region                       = var.aws_region
  security_group_id            = var.kong_security_group_id
  description                  = "Admin API for the audit relay"
  ip_protocol                  = "tcp"
  from_port                    = local.kong_port
  to_port                      = local.kong_port
  referenced_security_group_id = aws_security_group.relay.id
  tags                         = var.resource_tags
}

resource "aws_vpc_security_group_egress_rule" "ledger" {
  region                       = var.aws_region
  security_group_id            = aws_security_group.relay.id
  description                  = "Ledger"
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  referenced_security_group_id = aws_security_group.ledger.id
  tags                         = var.resource_tags
}

# No egress rule: the cache answers, it opens nothing.
resource "aws_security_group" "ledger" {
  region      = var.aws_region
  name        = "${var.security_group}-ledger"
  description = "Ledger of the Kong audit relay: from the relay only"
  vpc_id      = var.existing_vpc
  tags        = var.resource_tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "ledger_from_relay" {
  region                       = var.aws_region
  security_group_id            = aws_security_group.ledger.id
  description                  = "Relay"
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  referenced_security_group_id = aws_security_group.relay.id
  tags                         = var.resource_tags
}
