# Interface endpoints for the services that have one. CloudTrail's data API has none, so the destination cloudtrail
# still needs a NAT gateway or IPv6; with the destination cloudwatch these are all that a Lambda needs.

locals {
  endpoint_services = !var.create_vpc_endpoints ? [] : concat(
    ["secretsmanager"],
    var.host == "lambda" ? ["lambda"] : ["logs", "ecr.api", "ecr.dkr"],
    local.cloudwatch && var.host == "lambda" ? ["logs"] : [],
  )
}

resource "aws_security_group" "endpoints" {
  count = var.create_vpc_endpoints ? 1 : 0

  region      = var.aws_region
  name        = "${var.security_group}-endpoints"
  description = "Endpoints of AWS services, for the Kong audit relay"
  vpc_id      = var.existing_vpc
  tags        = var.resource_tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints_from_relay" {
  count = var.create_vpc_endpoints ? 1 : 0

  region                       = var.aws_region
  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "Relay"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  referenced_security_group_id = aws_security_group.relay.id
  tags                         = var.resource_tags
}

resource "aws_vpc_endpoint" "service" {
  for_each = toset(local.endpoint_services)

  region              = var.aws_region
  vpc_id              = var.existing_vpc
  service_name        = "com.amazonaws.${var.aws_region}.${each.value}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = var.existing_subnet_ids
  security_group_ids  = [aws_security_group.endpoints[0].id]
  tags                = merge(var.resource_tags, { Name = "${var.resource_name}-${each.value}" })

  # Private DNS sends the whole VPC through here: this account may, with whatever its roles allow, and nobody else.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "ThisAccountOnly"
      Effect    = "Allow"
      Principal = "*"
      Action    = "*"
      Resource  = "*"
      Condition = { StringEquals = { "aws:PrincipalAccount" = local.account } }
    }]
  })
}
